from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aiotkit.bundle.keys import PublicKey, SigningKey, read_public, write_public
from aiotkit.core.errors import SignatureError, StorageError


def test_a_saved_key_signs_as_before_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """A key file gives back the same key and has mode 0600."""
    key = SigningKey.generate()
    key.save(tmp_path / "k.pem")
    assert stat.S_IMODE((tmp_path / "k.pem").stat().st_mode) == 0o600
    again = SigningKey.load(tmp_path / "k.pem")
    assert again.public.verify(b"x", key.sign(b"x"))
    assert again.public == key.public


def test_a_key_is_never_replaced(tmp_path: Path) -> None:
    """Saving over an existing key is refused and leaves it as it was."""
    first = SigningKey.generate()
    first.save(tmp_path / "k.pem")
    with pytest.raises(StorageError, match="exists already"):
        SigningKey.generate().save(tmp_path / "k.pem")
    assert SigningKey.load(tmp_path / "k.pem").public == first.public


def test_a_key_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    """A private key readable by other users is not used."""
    SigningKey.generate().save(tmp_path / "k.pem")
    (tmp_path / "k.pem").chmod(0o644)
    with pytest.raises(SignatureError, match=r"other users may read it.*chmod 600"):
        SigningKey.load(tmp_path / "k.pem")


def test_other_kinds_of_keys_are_refused(tmp_path: Path) -> None:
    """Only ed25519 keys sign; anything else is refused by name."""
    pem = generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = b'{"format":1,"public":"00","scheme":"ed25519"}'
    torn = pem[:60] + pem[90:]
    wrong = {
        pem: "expected ed25519",
        torn: "unencrypted PEM",
        b"hello": "no private key",
        public: "a public key",
    }
    for content, words in wrong.items():
        path = tmp_path / "k.pem"
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(SignatureError, match=words):
            SigningKey.load(path)
    with pytest.raises(StorageError, match="aiotkit keys new"):
        SigningKey.load(tmp_path / "none.pem")


def test_a_public_key_survives_its_file_and_its_id_is_its_digest(tmp_path: Path) -> None:
    """A .pub file gives back the same key; the id follows from the key."""
    key = SigningKey.from_seed(bytes(32)).public
    write_public(key, tmp_path / "k.pub")
    assert read_public(tmp_path / "k.pub") == key
    # ed25519 test vector: the public key of the all-zero seed
    assert key.raw.hex() == "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29"
    (tmp_path / "bad.pub").write_text('{"format":1,"scheme":"rsa","public":"00"}')
    with pytest.raises(SignatureError, match="scheme"):
        read_public(tmp_path / "bad.pub")


def test_a_short_public_key_is_refused() -> None:
    """A key of another length is no key."""
    with pytest.raises(SignatureError, match="expected 32 bytes; found 31"):
        PublicKey(bytes(31))


def test_a_signature_of_any_other_length_or_bit_is_invalid() -> None:
    """Changing any bit of a signature, or its length, makes it invalid."""
    key = SigningKey.from_seed(bytes(32))
    good = key.sign(b"data")
    assert key.public.verify(b"data", good)
    for i in range(len(good) * 8):
        bad = bytearray(good)
        bad[i // 8] ^= 1 << i % 8
        assert not key.public.verify(b"data", bytes(bad))
    assert not key.public.verify(b"data", good[:-1])
    assert not key.public.verify(b"data", good + b"\0")
