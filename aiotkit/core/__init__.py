"""Vocabulary and pure rules, shared by desk and device. Nothing here reads a clock, a file or a socket."""
