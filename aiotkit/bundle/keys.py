"""ed25519 keys (RFC 8032): signing keys as PEM files readable by their owner only, public keys by id."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import Field

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import SignatureError, StorageError
from aiotkit.core.strict import Strict

RAW_SIZE = 32


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key: its 32 raw bytes. ``key_id`` is the sha256 of them in hexadecimal."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != RAW_SIZE:
            raise SignatureError("public key", expected=f"{RAW_SIZE} bytes", found=str(len(self.raw)))

    @property
    def key_id(self) -> str:
        """Follows from the key, so that it cannot be claimed."""
        return hashlib.sha256(self.raw).hexdigest()

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature over ``data`` is by this key."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, data)
        except (InvalidSignature, ValueError):
            return False
        return True


class SigningKey:
    """A private key.

    >>> key = SigningKey.generate()
    >>> key.public.verify(b"hello", key.sign(b"hello")), key.public.verify(b"hullo", key.sign(b"hello"))
    (True, False)
    """

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SigningKey:
        """A new key from the operating system's random numbers."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """The key of a 32-byte seed: for tests and simulations, where keys must not change."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def load(cls, path: Path | str) -> SigningKey:
        """Read a PEM file (PKCS #8).

        Raises:
            StorageError: the file cannot be read.
            SignatureError: it is no ed25519 key, or everybody on the machine may read it.
        """
        path = Path(path)
        try:
            mode, pem = path.stat().st_mode, path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"signing key {path}", found=error.strerror or str(error), do="Make one: aiotkit keys new."
            ) from error
        if b"PRIVATE KEY" not in pem:
            public = "a public key" if b"PUBLIC KEY" in pem or b'"public"' in pem else "no private key in it"
            raise SignatureError(f"signing key {path}", expected="an ed25519 private key (PEM)", found=public)
        if mode & 0o007:
            raise SignatureError(f"signing key {path}: other users may read it", do=f"Run: chmod 600 {path}")
        try:
            private = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SignatureError(
                f"signing key {path}", expected="an unencrypted PEM key (PKCS #8)", found=str(error)
            ) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise SignatureError(
                f"signing key {path}", expected="ed25519", found=type(private).__name__.lstrip("_")
            )
        return cls(private)

    def save(self, path: Path | str) -> None:
        """Write a PEM file that only its owner may read (0600); an existing file is never replaced.

        Raises:
            StorageError: the file exists, or its folder cannot be written.
        """
        path = Path(path)
        pem = self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _create(path, pem, 0o600)

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return PublicKey(self._private.public_key().public_bytes_raw())

    def sign(self, data: bytes) -> bytes:
        """The 64-byte signature over ``data``; the same bytes every time."""
        return self._private.sign(data)


class _PublicDocument(Strict):
    format: Literal[1]
    scheme: Literal["ed25519"]
    public: str = Field(pattern=r"^[0-9a-f]{64}$")


def write_public(key: PublicKey, path: Path | str) -> None:
    """Write a public key as a small JSON file; an existing one is never replaced (``StorageError``)."""
    document = {"format": 1, "scheme": "ed25519", "public": key.raw.hex()}
    _create(Path(path), canonical_bytes(document) + b"\n", 0o644)


def read_public(path: Path | str) -> PublicKey:
    """The inverse of ``write_public``.

    Raises:
        StorageError: the file cannot be read.
        SignatureError: it is no public key.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise StorageError(f"public key {path}", found=error.strerror or str(error)) from error
    document = parse_document(data, _PublicDocument, f"public key {path}", SignatureError)
    return PublicKey(bytes.fromhex(document.public))


def _create(path: Path, data: bytes, mode: int) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise StorageError(
            f"key file {path} exists already", do="Choose another name; keys are never replaced."
        ) from error
    except OSError as error:
        raise StorageError(f"key file {path}", found=error.strerror or str(error)) from error
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
