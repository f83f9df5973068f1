"""The archive a bundle travels in: a plain tar (POSIX ustar), the same bytes for the same content.

``manifest.json``, ``signatures.json``, then ``files/<sha256>`` in order. It is only transport: identity
is the manifest's digest. The reader accepts exactly what the writer writes. It compares every header
with the one it would have written itself, so links, folders, odd names, owners, padding and trailing
bytes need no rules of their own; and it parses nothing before sizes and names are checked.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import Field

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.manifest import MAX_BYTES, MAX_FILES
from aiotkit.bundle.sign import (
    MAX_SIGNATURES,
    Signature,
    SignatureDocument,
    signatures_from_documents,
    signatures_to_json,
)
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import IntegrityError, SignatureError
from aiotkit.core.strict import Strict

SUFFIX = ".aiot"
MANIFEST = "manifest.json"
SIGNATURES = "signatures.json"
MAX_MANIFEST = 1 << 20
MAX_SIGNATURE_BYTES = 64 << 10
_BLOCK = 512
_END = bytes(2 * _BLOCK)
_BLOB = re.compile(r"^files/[0-9a-f]{64}$")


@dataclass(frozen=True, slots=True)
class Archive:
    """The parts of an archive, unverified. ``blobs``: sha256 (hex, as named) -> bytes."""

    manifest: bytes
    signatures: tuple[Signature, ...]
    blobs: Mapping[str, bytes]


class _Signatures(Strict):
    format: int = Field(ge=1, le=1)
    signatures: tuple[SignatureDocument, ...] = Field(max_length=MAX_SIGNATURES)


def write_archive(manifest: bytes, signatures: Sequence[Signature], files: Iterable[bytes]) -> bytes:
    """The archive of a manifest, its signatures and its files' contents."""
    blobs = {hashlib.sha256(data).hexdigest(): data for data in files}
    parts = [(MANIFEST, manifest), (SIGNATURES, _signature_bytes(signatures))]
    parts += [(f"files/{name}", blobs[name]) for name in sorted(blobs)]
    return b"".join(_header(name, len(data)) + data + _padding(len(data)) for name, data in parts) + _END


def read_archive(data: bytes, max_bytes: int = MAX_BYTES) -> Archive:
    """Take an archive apart; nothing is verified yet.

    Raises:
        IntegrityError: larger than ``max_bytes``, cut off, extended, or not what ``write_archive`` writes.
    """
    if len(data) > max_bytes:
        raise IntegrityError("bundle archive", expected=f"at most {max_bytes} bytes", found=str(len(data)))
    entries = _entries(data)
    names = [name for name, _ in entries]
    blobs = sorted({name for name in names if _BLOB.fullmatch(name)})
    if names != [MANIFEST, SIGNATURES, *blobs]:
        raise IntegrityError(
            "bundle archive",
            expected=f"{MANIFEST}, {SIGNATURES}, then files in order, each once",
            found=", ".join(names[:8]) or "nothing",
        )
    listed = parse_document(entries[1][1], _Signatures, SIGNATURES, SignatureError)
    archive = Archive(
        entries[0][1],
        signatures_from_documents(listed.signatures, SIGNATURES),
        {name.removeprefix("files/"): body for name, body in entries[2:]},
    )
    if _signature_bytes(archive.signatures) != entries[1][1]:
        raise IntegrityError(SIGNATURES, expected="canonical JSON in order of key ids", found="another form")
    return archive


def _entries(data: bytes) -> list[tuple[str, bytes]]:
    entries: list[tuple[str, bytes]] = []
    at = 0
    while data[at : at + _BLOCK] != _END[:_BLOCK]:
        name, size = _read_header(data[at : at + _BLOCK], len(entries))
        start = at + _BLOCK
        at = start + size + len(_padding(size))
        if len(data) < at + len(_END):
            raise IntegrityError(f"bundle archive: it ends within '{name}'", found=f"{len(data)} bytes")
        if data[start + size : at] != _padding(size):
            raise IntegrityError(f"bundle archive: bytes between '{name}' and the next file")
        entries.append((name, data[start : start + size]))
    if data[at:] != _END:
        raise IntegrityError(
            "bundle archive: wrong end", expected=f"{len(_END)} zero bytes", found=f"{len(data) - at} bytes"
        )
    return entries


def _read_header(block: bytes, index: int) -> tuple[str, int]:
    if len(block) < _BLOCK:
        raise IntegrityError("bundle archive: it ends within a header", found=f"{len(block)} bytes")
    if index >= MAX_FILES + 2:
        raise IntegrityError("bundle archive", expected=f"at most {MAX_FILES} files", found="more")
    name = block[:100].rstrip(b"\0").decode("ascii", "replace")
    if name not in (MANIFEST, SIGNATURES) and not _BLOB.fullmatch(name):
        raise IntegrityError(
            f"bundle archive: file name {name[:80]!r}", expected=f"{MANIFEST}, {SIGNATURES} or files/<sha256>"
        )
    octal = block[124:135]
    if not re.fullmatch(rb"[0-7]{11}", octal):
        raise IntegrityError(f"bundle archive: size of '{name}'", found=repr(octal))
    size = int(octal, 8)
    limit = {MANIFEST: MAX_MANIFEST, SIGNATURES: MAX_SIGNATURE_BYTES}.get(name, MAX_BYTES)
    if size > limit:
        raise IntegrityError(f"bundle archive: '{name}'", expected=f"at most {limit} bytes", found=str(size))
    if block != _header(name, size):
        raise IntegrityError(
            f"bundle archive: '{name}' is not a plain file as bundles hold them",
            do="Make archives with aiotkit bundle build; do not repack them.",
        )
    return name, size


def _signature_bytes(signatures: Sequence[Signature]) -> bytes:
    listed = sorted(signatures, key=lambda s: s.key_id)
    return canonical_bytes({"format": 1, "signatures": signatures_to_json(listed)})


def _header(name: str, size: int) -> bytes:
    """A ustar header (POSIX.1-1988): mode 0644, owner 0, time 0, regular file."""
    fields = [
        name.encode().ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"%011o\0" % 0,
        b" " * 8,
        b"0" + bytes(100),
        b"ustar\x0000" + bytes(64),
        bytes(8 + 8 + 155 + 12),
    ]
    blank = b"".join(fields)
    checksum = b"%06o\0 " % sum(blank)
    return blank[:148] + checksum + blank[156:]


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
