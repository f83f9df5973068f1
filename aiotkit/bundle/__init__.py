"""What both sides agree on: manifest, pack, signatures, golden cases, the engine and replay."""
