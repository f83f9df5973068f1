from __future__ import annotations

import json
from typing import Any

import pytest
from worlds.bundles import signing_key

from aiotkit.bundle.trust import make_trust, parse_trust
from aiotkit.core.errors import SignatureError

A, B = signing_key("a").public, signing_key("b").public


def document(**roles: Any) -> dict[str, Any]:
    made = make_trust({"release": ([A, B], 2)})
    return json.loads(made.canonical()) | ({"roles": roles} if roles else {})


def test_a_trust_file_survives_its_bytes() -> None:
    """Reading what was written gives an equal document."""
    made = make_trust({"release": ([A, B], 2), "operator": ([A], 1)}, version=3, comments={A.key_id: "ann"})
    assert parse_trust(made.canonical()) == made
    assert made.keys[A.key_id].comment == "ann"
    assert made.role("release").threshold == 2


@pytest.mark.parametrize(
    ("role", "words"),
    [
        ({"key_ids": ["ff" * 32], "threshold": 1}, "unknown key ffffffffffff"),
        ({"key_ids": [A.key_id, B.key_id], "threshold": 3}, "threshold 3 can never be reached by 2 keys"),
        ({"key_ids": [A.key_id, A.key_id], "threshold": 2}, "a key is listed twice"),
        ({"key_ids": [A.key_id], "threshold": 0}, "greater than or equal to 1|greater than 0"),
        ({"key_ids": [], "threshold": 1}, "at least 1"),
    ],
    ids=["unknown-key", "threshold", "twice", "zero", "nobody"],
)
def test_a_role_that_cannot_work_is_refused(role: dict[str, Any], words: str) -> None:
    """Unknown keys, doubled keys and thresholds out of reach are refused, and named."""
    with pytest.raises(SignatureError, match=words):
        parse_trust(json.dumps(document(release=role)).encode())


def test_a_key_under_another_keys_id_is_refused() -> None:
    """A key id is the digest of its key, so a key cannot pass for another."""
    plain = document()
    plain["keys"][A.key_id]["public"] = B.raw.hex()
    with pytest.raises(SignatureError, match="the id is not the sha256 of the key"):
        parse_trust(json.dumps(plain).encode())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", "expected a JSON object"),
        (b"\xff", "JSON in UTF-8"),
        (b'{"format": 1, "format": 1}', "given twice"),
        (b'{"format": NaN}', "NaN is no JSON number"),
        (b"[" * 100_000, "JSON in UTF-8"),
        (b'{"format": 2, "version": 1, "keys": {}, "roles": {}}', "format"),
        (b'{"format": 1, "keys": {}, "roles": {}}', "roles"),
        (b'{"format": 1, "keys": {}, "roles": {"root": {"key_ids": ["x"]}}}', "release"),
    ],
)
def test_what_is_no_trust_file_is_refused(data: bytes, words: str) -> None:
    """Anything but a trust document of format 1 is refused in words."""
    with pytest.raises(SignatureError, match=words):
        parse_trust(data)


def test_a_role_nobody_holds_is_refused() -> None:
    """Asking for a role without keys is an error, not an empty threshold."""
    with pytest.raises(SignatureError, match="no keys for the role 'operator'"):
        make_trust({"release": ([A], 1)}).role("operator")
