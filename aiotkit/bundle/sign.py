"""Signed statements in the form of DSSE (Dead Simple Signing Envelope, v1.0.2).

Signatures cover ``PAE(type, payload)``, so that a payload signed for one purpose is worth nothing for
another. Used for bundles (the payload is the manifest), operators' messages and collectors' watermarks.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.trust import KeyId, Role, Trust
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import SignatureError
from aiotkit.core.strict import Strict

BUNDLE_TYPE = "application/vnd.aiotkit.bundle+json"
OPERATOR_TYPE = "application/vnd.aiotkit.operator+json"
WATERMARK_TYPE = "application/vnd.aiotkit.watermark+json"
MAX_SIGNATURES = 16
MAX_ENVELOPE = 1 << 20


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature and the id of the key that made it."""

    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload with signatures, sorted by key id; not to be believed before ``open_envelope``."""

    payload_type: str
    payload: bytes
    signatures: tuple[Signature, ...]

    def to_bytes(self) -> bytes:
        """The envelope as DSSE JSON, canonical."""
        return canonical_bytes(
            {
                "payloadType": self.payload_type,
                "payload": base64.b64encode(self.payload).decode(),
                "signatures": signatures_to_json(self.signatures),
            }
        )


class SignatureDocument(Strict):
    """A signature in JSON: DSSE's names, standard base64."""

    key_id: KeyId = Field(alias="keyid")
    sig: str = Field(max_length=88)


class _EnvelopeDocument(Strict):
    payload_type: str = Field(alias="payloadType", min_length=1, max_length=200)
    payload: str
    signatures: tuple[SignatureDocument, ...] = Field(max_length=MAX_SIGNATURES)


def signatures_to_json(signatures: Iterable[Signature]) -> list[dict[str, str]]:
    """Signatures as plain data."""
    return [{"keyid": s.key_id, "sig": base64.b64encode(s.signature).decode()} for s in signatures]


def signatures_from_documents(documents: Sequence[SignatureDocument], name: str) -> tuple[Signature, ...]:
    """The inverse of ``signatures_to_json``; raises ``SignatureError`` for bad base64."""
    return tuple(Signature(d.key_id, _unbase64(d.sig, f"{name}: a signature")) for d in documents)


def _unbase64(text: str, name: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise SignatureError(name, expected="base64", found=str(error)) from error
    if base64.b64encode(data).decode() != text:  # spare bits must be zero: one byte form only
        raise SignatureError(name, expected="base64 in its one canonical form", found="spare bits set")
    return data


def parse_envelope(data: bytes, name: str = "envelope") -> Envelope:
    """Read an envelope; nothing is verified yet.

    Raises:
        SignatureError: too large, not canonical DSSE JSON.
    """
    if len(data) > MAX_ENVELOPE:
        raise SignatureError(name, expected=f"at most {MAX_ENVELOPE} bytes", found=str(len(data)))
    document = parse_document(data, _EnvelopeDocument, name, SignatureError)
    envelope = Envelope(
        document.payload_type,
        _unbase64(document.payload, f"{name}: payload"),
        signatures_from_documents(document.signatures, name),
    )
    if envelope.to_bytes() != data:
        raise SignatureError(name, expected="canonical JSON", found="another byte form of the same")
    return envelope


def pae(payload_type: str, payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding: what is actually signed.

    >>> pae("http://example.com/HelloWorld", b"hello world")
    b'DSSEv1 29 http://example.com/HelloWorld 11 hello world'
    """
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign(payload_type: str, payload: bytes, keys: Iterable[SigningKey]) -> Envelope:
    """A payload signed by each of the keys."""
    envelope = Envelope(payload_type, payload, ())
    for key in keys:
        envelope = add_signature(envelope, key)
    return envelope


def add_signature(envelope: Envelope, key: SigningKey) -> Envelope:
    """The envelope with one more signature (or the same, when the key has signed already)."""
    mine = Signature(key.public.key_id, key.sign(pae(envelope.payload_type, envelope.payload)))
    others = [s for s in envelope.signatures if s.key_id != mine.key_id]
    return replace(envelope, signatures=tuple(sorted([*others, mine], key=lambda s: s.key_id)))


def open_envelope(envelope: Envelope, trust: Trust, role: Role, payload_type: str) -> bytes:
    """The payload, once enough different trusted keys have signed it.

    Signatures by keys that the role does not know count nothing. A signature by a known key that does
    not verify refuses the envelope, even if others would suffice: something has been altered.

    Raises:
        SignatureError: another payload type, a bad signature, or too few; says how many of how many.
    """
    if envelope.payload_type != payload_type:
        raise SignatureError("envelope: payload type", expected=payload_type, found=envelope.payload_type)
    needed = trust.role(role)
    message = pae(envelope.payload_type, envelope.payload)
    valid: set[str] = set()
    for signature in envelope.signatures:
        if signature.key_id not in needed.key_ids:
            continue
        if not trust.keys[signature.key_id].key.verify(message, signature.signature):
            raise SignatureError(
                f"the signature by key {signature.key_id[:12]}… does not fit what is signed",
                do="The content or the signature was altered; fetch it again from who made it.",
            )
        valid.add(signature.key_id)
    if len(valid) < needed.threshold:
        raise SignatureError(
            f"role '{role}'",
            expected=f"valid signatures by {needed.threshold} of {len(needed.key_ids)} trusted keys",
            found=f"{len(valid)} (of {len(envelope.signatures)} signatures)",
            do="Have it signed by more holders of that role's keys"
            + (": aiotkit bundle sign, or --key of aiotkit run release." if role == "release" else "."),
        )
    return envelope.payload
