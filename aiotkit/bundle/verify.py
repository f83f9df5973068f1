"""Whether a bundle may be used here. Nothing of it is used before every question is answered.

In order: signatures over the manifest, digests of every file, whether it is meant for this place, and
whether it is not older than what this device has already passed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from aiotkit.bundle.manifest import MAX_BYTES, Manifest, parse_manifest, version_key
from aiotkit.bundle.pack import Archive, read_archive
from aiotkit.bundle.sign import BUNDLE_TYPE, Envelope, open_envelope
from aiotkit.bundle.trust import Trust
from aiotkit.core.errors import IntegrityError, MismatchError, RollbackRefused


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a bundle must fit: this device's decision, hardware, site, runtime version, and its floor.

    ``floor``: the highest release counter this device has passed; 0 before the first bundle.
    """

    decision_id: str
    hardware: str
    site: str
    runtime: str
    floor: int


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A bundle whose signatures and digests hold. ``files``: path -> bytes; ``digest``: its identity."""

    manifest: Manifest
    digest: str
    files: Mapping[str, bytes]
    archive: bytes


def verify_bundle(data: bytes, trust: Trust, expectation: Expectation) -> VerifiedBundle:
    """Verify a bundle for a device.

    Args:
        data: the archive's bytes.
        trust: who may release; passed in from where the device was commissioned.
        expectation: what this device is and what it has already passed.

    Raises:
        IntegrityError: bytes are not what the manifest or the archive's form promise.
        SignatureError: too few valid signatures by release keys.
        MismatchError: for another decision, hardware, site or a newer runtime.
        RollbackRefused: older than the floor.
    """
    bundle = verify_signed(data, trust)
    check_place(bundle.manifest, expectation)
    check_floor(bundle.manifest, expectation.floor)
    return bundle


def verify_signed(data: bytes, trust: Trust, max_bytes: int = MAX_BYTES) -> VerifiedBundle:
    """Signatures and digests only: what the desk may ask of a bundle that is not meant for the desk."""
    archive = read_archive(data, max_bytes)
    envelope = Envelope(BUNDLE_TYPE, archive.manifest, archive.signatures)
    manifest = parse_manifest(open_envelope(envelope, trust, "release", BUNDLE_TYPE))
    return VerifiedBundle(manifest, manifest.digest, check_files(manifest, archive), data)


def check_files(manifest: Manifest, archive: Archive) -> dict[str, bytes]:
    """Every file the manifest promises, and no other; path -> bytes.

    Raises:
        IntegrityError: naming the file that is missing, altered or not promised.
    """
    files: dict[str, bytes] = {}
    for path, promised in manifest.files.items():
        data = archive.blobs.get(promised.sha256)
        if data is None:
            raise IntegrityError(f"bundle: file '{path}' is missing", expected=f"sha256 {promised.sha256}")
        if len(data) != promised.size:
            raise IntegrityError(f"bundle: '{path}'", expected=f"{promised.size} bytes", found=str(len(data)))
        found = hashlib.sha256(data).hexdigest()
        if found != promised.sha256:
            raise IntegrityError(f"bundle: '{path}'", expected=f"sha256 {promised.sha256}", found=found)
        files[path] = data
    extra = sorted(set(archive.blobs) - {f.sha256 for f in manifest.files.values()})
    if extra:
        raise IntegrityError("bundle: a file the manifest does not name", found=", ".join(extra))
    return files


def check_place(manifest: Manifest, here: Expectation) -> None:
    """Refuse a bundle made for elsewhere (``MismatchError``)."""
    if manifest.decision.id != here.decision_id:
        raise MismatchError("bundle: decision", expected=here.decision_id, found=manifest.decision.id)
    for what, wanted, mine in (
        ("hardware", manifest.hardware, here.hardware),
        ("site", manifest.site, here.site),
    ):
        if wanted != "any" and mine not in wanted:
            raise MismatchError(f"bundle: {what}", expected=mine, found=", ".join(wanted))
    if version_key(manifest.min_runtime) > version_key(here.runtime):
        raise MismatchError(
            "bundle: min_runtime",
            expected=f"at most {here.runtime}, which runs here",
            found=manifest.min_runtime,
            do="Update aiotkit on this device first.",
        )


def check_floor(manifest: Manifest, floor: int) -> None:
    """Refuse a bundle older than what has been passed (``RollbackRefused``)."""
    if manifest.release_counter < floor:
        raise RollbackRefused(
            "bundle: release counter",
            expected=f"at least {floor}, the floor of this device",
            found=str(manifest.release_counter),
            do="Release again with a higher counter.",
        )
