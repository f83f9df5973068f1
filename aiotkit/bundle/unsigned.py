"""Bundles before and while they are signed: made from files, looked into, signed once more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import run_golden
from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.manifest import DecisionRef, File, Manifest, parse_manifest
from aiotkit.bundle.pack import read_archive, write_archive
from aiotkit.bundle.sign import BUNDLE_TYPE, Envelope, add_signature
from aiotkit.bundle.verify import check_files
from aiotkit.core.decision import Decision

#: the oldest aiotkit that can run what is made here
MIN_RUNTIME = "0.1.0"
Places = tuple[str, ...] | Literal["any"]


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A bundle before anyone has signed it. ``files``: path -> bytes."""

    manifest: Manifest
    files: Mapping[str, bytes]

    @property
    def digest(self) -> str:
        """Its identity, which signing does not change."""
        return self.manifest.digest

    def archive(self, keys: Iterable[SigningKey] = ()) -> bytes:
        """The archive's bytes, signed by each of the keys."""
        return _signed(self, Envelope(BUNDLE_TYPE, self.manifest.canonical(), ()), keys)


def make_unsigned(
    decision: Decision,
    files: Mapping[str, bytes],
    *,
    release_counter: int,
    hardware: Places = "any",
    site: Places | None = None,
) -> Unsigned:
    """The manifest over finished files; ``site`` is by default the decision's own."""
    return Unsigned(
        Manifest(
            decision=DecisionRef(id=decision.id, revision=decision.revision, digest=decision.digest),
            release_counter=release_counter,
            min_runtime=MIN_RUNTIME,
            hardware=hardware,
            site=(decision.site.name,) if site is None else site,
            files={
                path: File(sha256=hashlib.sha256(data).hexdigest(), size=len(data))
                for path, data in files.items()
            },
        ),
        dict(files),
    )


def read_unsigned(data: bytes) -> tuple[Unsigned, Envelope]:
    """An archive's contents and its signatures so far: integrity checked, **signatures not verified**.

    For the desk only: to look into a bundle, and to sign it.

    Raises:
        IntegrityError: a file is missing, altered, or not named by the manifest.
    """
    archive = read_archive(data)
    manifest = parse_manifest(archive.manifest)
    envelope = Envelope(BUNDLE_TYPE, archive.manifest, archive.signatures)
    return Unsigned(manifest, check_files(manifest, archive)), envelope


def sign_archive(data: bytes, keys: Iterable[SigningKey]) -> bytes:
    """The archive with further signatures; its files and its digest stay the same.

    Raises:
        IntegrityError: what would be signed is damaged.
        BundleError: the engine cannot open it, or its golden cases are decided differently here.
    """
    unsigned, envelope = read_unsigned(data)
    run_golden(Engine(unsigned.files), unsigned.files)
    return _signed(unsigned, envelope, keys)


def _signed(unsigned: Unsigned, envelope: Envelope, keys: Iterable[SigningKey]) -> bytes:
    for key in keys:
        envelope = add_signature(envelope, key)
    return write_archive(envelope.payload, envelope.signatures, unsigned.files.values())
