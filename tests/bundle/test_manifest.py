from __future__ import annotations

import json
from typing import Any

import pytest
from worlds.bundles import unsigned_bundle

from aiotkit.bundle.manifest import parse_manifest, version_key
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import IntegrityError

GOOD = unsigned_bundle().manifest


def changed(**changes: Any) -> bytes:
    return canonical_bytes(json.loads(GOOD.canonical()) | changes)


def files(**changes: Any) -> dict[str, Any]:
    return json.loads(GOOD.canonical())["files"] | changes


def test_a_manifest_survives_its_bytes_and_they_are_its_identity() -> None:
    """Reading gives back what was written; the digest is that of the bytes."""
    assert parse_manifest(GOOD.canonical()) == GOOD
    assert GOOD.digest == digest(GOOD.canonical())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (json.dumps(json.loads(GOOD.canonical())).encode(), "canonical JSON"),
        (GOOD.canonical()[:-1] + b',"format":1}', "given twice"),
        (changed(format=2), "format"),
        (changed(release_counter=0), "release_counter"),
        (changed(release_counter=-1), "release_counter"),
        (changed(min_runtime="1.0"), "min_runtime"),
        (changed(hardware=[]), "hardware"),
        (changed(site=""), "site"),
        (changed(extra=1), "extra: unknown key"),
        (changed(decision={"id": "x", "revision": 1, "digest": "sha256:" + "0" * 64}), "not the digest of"),
        (changed(files={"decision.json": GOOD.files["decision.json"].model_dump()}), "golden.bin: missing"),
        (changed(files=files(**{"../x": {"sha256": "0" * 64, "size": 1}})), "files"),
        (changed(files=files(**{"/x": {"sha256": "0" * 64, "size": 1}})), "files"),
        (changed(files=files(**{"a/../x": {"sha256": "0" * 64, "size": 1}})), "files"),
        (changed(files=files(x={"sha256": "0" * 63, "size": 1})), "sha256"),
        (changed(files=files(x={"sha256": "0" * 64, "size": -1})), "size"),
        (changed(files=files(x={"sha256": "0" * 64, "size": 1 << 40})), "bytes in all, at most"),
        (changed(files=files(**{f"x{i}": {"sha256": "0" * 64, "size": 1} for i in range(64)})), "at most 64"),
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes, words: str) -> None:
    """Another byte form, unknown keys, bad places, paths, sizes and missing files are refused in words."""
    with pytest.raises(IntegrityError, match=words):
        parse_manifest(data)


def test_a_version_that_is_none_is_an_error() -> None:
    """Versions have three numbers."""
    with pytest.raises(ValueError, match="not of the form"):
        version_key("latest")
