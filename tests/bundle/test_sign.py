from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.bundles import signing_key

from aiotkit.bundle.sign import (
    BUNDLE_TYPE,
    OPERATOR_TYPE,
    Envelope,
    Signature,
    add_signature,
    open_envelope,
    pae,
    parse_envelope,
    sign,
)
from aiotkit.bundle.trust import make_trust
from aiotkit.core.errors import SignatureError

A, B, C, STRANGER = (signing_key(name) for name in "abcs")
TRUST = make_trust({"release": ([A.public, B.public, C.public], 2), "operator": ([C.public], 1)})
DATA = b'{"hello":1}'


def opened(envelope: Envelope) -> bytes:
    return open_envelope(envelope, TRUST, "release", BUNDLE_TYPE)


def test_enough_different_keys_open_an_envelope() -> None:
    """Two of three release keys suffice, whichever they are and whatever strangers add."""
    for pair in ((A, B), (B, C), (C, A)):
        assert opened(sign(BUNDLE_TYPE, DATA, pair)) == DATA
    assert opened(sign(BUNDLE_TYPE, DATA, [A, STRANGER, B])) == DATA


@pytest.mark.parametrize("signers", [[], [A], [STRANGER, A], [STRANGER]])
def test_too_few_trusted_signatures_are_refused(signers: list[Any]) -> None:
    """One trusted key, or none, does not make two; the message says how many of how many."""
    words = f"2 of 3 trusted keys; found {sum(k is A for k in signers)} "
    with pytest.raises(SignatureError, match=words):
        opened(sign(BUNDLE_TYPE, DATA, signers))


def test_the_same_key_twice_counts_once() -> None:
    """Two signatures by one key are one signature, also when slipped in twice."""
    once = sign(BUNDLE_TYPE, DATA, [A, A])
    assert len(once.signatures) == 1
    twice = replace(once, signatures=once.signatures * 2)
    with pytest.raises(SignatureError, match="found 1 "):
        opened(twice)


def test_one_bad_signature_by_a_trusted_key_spoils_the_envelope() -> None:
    """A trusted key's signature that does not fit means tampering, even when two others fit."""
    envelope = sign(BUNDLE_TYPE, DATA, [A, B, C])
    broken = Signature(envelope.signatures[2].key_id, bytes(64))
    with pytest.raises(SignatureError, match="does not fit what is signed"):
        opened(replace(envelope, signatures=(*envelope.signatures[:2], broken)))


def test_a_signature_cannot_be_borrowed() -> None:
    """One key's signature under another key's id does not count for it."""
    envelope = sign(BUNDLE_TYPE, DATA, [A])
    borrowed = Signature(B.public.key_id, envelope.signatures[0].signature)
    with pytest.raises(SignatureError, match="does not fit"):
        opened(replace(envelope, signatures=(*envelope.signatures, borrowed)))


def test_another_payload_is_refused() -> None:
    """Signatures over one payload are worth nothing for another."""
    with pytest.raises(SignatureError, match="does not fit"):
        opened(replace(sign(BUNDLE_TYPE, DATA, [A, B]), payload=b'{"hello":2}'))


def test_a_payload_signed_for_one_purpose_is_worth_nothing_for_another() -> None:
    """Neither another type nor a type swapped after signing is accepted."""
    message = sign(OPERATOR_TYPE, DATA, [A, B])
    with pytest.raises(SignatureError, match=r"payload type.*expected .*bundle.*found .*operator"):
        opened(message)
    with pytest.raises(SignatureError, match="does not fit"):
        opened(replace(message, payload_type=BUNDLE_TYPE))


def test_a_key_of_another_role_does_not_count() -> None:
    """An operator's envelope needs an operator's key: release keys do not do."""
    with pytest.raises(SignatureError, match="role 'operator'"):
        open_envelope(sign(OPERATOR_TYPE, DATA, [A, B]), TRUST, "operator", OPERATOR_TYPE)
    assert open_envelope(sign(OPERATOR_TYPE, DATA, [C]), TRUST, "operator", OPERATOR_TYPE) == DATA


@given(st.binary(max_size=300), st.permutations([A, B, C]))
def test_an_envelope_survives_its_bytes_whatever_the_order_of_signing(
    payload: bytes, order: list[Any]
) -> None:
    """Equal content has equal bytes, and reading gives back what was written."""
    envelope = sign(BUNDLE_TYPE, payload, order)
    assert envelope == sign(BUNDLE_TYPE, payload, [A, B, C])
    assert parse_envelope(envelope.to_bytes()) == envelope


def test_the_encoding_is_dsse() -> None:
    """Length-prefixed type and payload, so that neither can run into the other (DSSE v1)."""
    assert pae("a 1", b"b") == b"DSSEv1 3 a 1 1 b"
    assert pae("a", b"1 b") != pae("a 1", b"b")
    document = json.loads(sign(BUNDLE_TYPE, DATA, [A]).to_bytes())
    assert document.keys() == {"payloadType", "payload", "signatures"}
    assert base64.b64decode(document["payload"]) == DATA
    signature = document["signatures"][0]
    assert A.public.verify(pae(BUNDLE_TYPE, DATA), base64.b64decode(signature["sig"]))


def test_every_flipped_bit_of_an_envelope_is_refused() -> None:
    """An envelope with any one bit changed never gives out a payload."""
    good = sign(BUNDLE_TYPE, DATA, [A, B]).to_bytes()
    for i in range(len(good) * 8):
        bad = bytearray(good)
        bad[i // 8] ^= 1 << i % 8
        with pytest.raises(SignatureError):
            opened(parse_envelope(bytes(bad)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.encode() + b" ", "canonical JSON"),
        (lambda d: d.replace('=="}', '!="}').encode(), "base64"),
        (lambda d: d.encode() + b" " * (1 << 20), "at most"),
        (lambda d: d.replace("keyid", "kid").encode(), "unknown key|missing"),
        (lambda d: d.encode()[:-1], "JSON in UTF-8"),
    ],
)
def test_what_is_no_envelope_is_refused(change: Any, words: str) -> None:
    """Another byte form, too many bytes or other keys are refused in words."""
    with pytest.raises(SignatureError, match=words):
        parse_envelope(change(sign(BUNDLE_TYPE, DATA, [A]).to_bytes().decode()))


def test_adding_a_signature_keeps_the_others() -> None:
    """Signing in turn is the same as signing together."""
    assert add_signature(sign(BUNDLE_TYPE, DATA, [B]), A) == sign(BUNDLE_TYPE, DATA, [A, B])


def test_base64_has_one_form() -> None:
    """Spare bits of the last base64 character that are not zero are refused: they are bytes nobody signed."""
    good = sign(BUNDLE_TYPE, DATA, [A]).to_bytes().decode()
    at = good.index('=="}') - 1
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = alphabet[alphabet.index(good[at]) ^ 1]
    with pytest.raises(SignatureError, match="one canonical form"):
        parse_envelope((good[:at] + other + good[at + 1 :]).encode())
