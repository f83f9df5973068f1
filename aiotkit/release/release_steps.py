"""The stages of a release: sign what was approved, and publish it. What its notebooks call."""

from __future__ import annotations

import time
from pathlib import Path

from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.trust import Trust, parse_trust
from aiotkit.bundle.unsigned import sign_archive
from aiotkit.bundle.verify import verify_signed
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import StorageError
from aiotkit.release.approve import Standing, require_approval
from aiotkit.release.publish import Index, Release, publish_bundle
from aiotkit.release.registry import Registry
from aiotkit.release.stages import seal, write_figures

__all__ = ["bundle", "publish", "read_trust", "seal"]

SIGNED_FILE, APPROVAL_FILE, RELEASE_FILE = "signed.aiot", "approval.dsse.json", "release.json"
Where = str | Path


def bundle(*, store: str, decision_id: str, version: int, trust: Where, keys: str, out: Where) -> Standing:
    """10: fetch the candidate, check that it is approved, sign it, verify what was signed.

    Args:
        store: tracking URI of the MLflow store.
        decision_id: what it decides.
        version: of the candidate.
        trust: the trust file; its role ``approval`` says whose approval counts.
        keys: files of the release keys, with commas.
        out: folder to write into.

    Raises:
        ApprovalError: it is not approved, not by whom it must be, or not any more.
        BundleError: it is not what was registered, or the signatures do not suffice.
    """
    out, trusted = Path(out), read_trust(trust)
    registry = Registry(store)
    found = registry.version(decision_id, version)
    unsigned, _ = registry.fetch(found)
    standing = require_approval(registry, found, trusted, now_us=time.time_ns() // 1000)
    assert standing.statement is not None
    signed = sign_archive(unsigned, [SigningKey.load(Path(path)) for path in keys.split(",")])
    verified = verify_signed(signed, trusted)
    conditions = standing.statement.conditions
    about = Release(
        release_counter=verified.manifest.release_counter,
        bundle=verified.digest,
        evidence=found.evidence,
        file=f"{verified.manifest.release_counter:06d}-{verified.digest[7:19]}.aiot",
        sha256="",
        approval=standing.digest,
        approval_file=f"{verified.manifest.release_counter:06d}-{verified.digest[7:19]}.approval.json",
        approved_by=standing.statement.by,
        authenticated=standing.authenticated,
        despite_gates=standing.statement.despite_gates,
        pilot=conditions.pilot,
        expires_us=conditions.expires_us,
    )
    (out / SIGNED_FILE).write_bytes(signed)
    (out / APPROVAL_FILE).write_bytes(registry.statements(found)[standing.digest])
    (out / RELEASE_FILE).write_bytes(canonical_bytes(about.model_dump(mode="json")) + b"\n")
    write_figures(out, {"release_counter": about.release_counter, "authenticated": standing.authenticated})
    return standing


def publish(
    *, store: str, decision_id: str, version: int, bundled: Where, folder: Where, out: Where
) -> Index:
    """20: put it into the release folder, then make it the champion (but for a pilot group alone).

    Args:
        store: tracking URI of the MLflow store.
        decision_id: what it decides.
        version: of the candidate.
        bundled: folder of stage 10.
        folder: the release folder.
        out: folder to write into.

    Raises:
        RollbackRefused: a newer release is out.
        StorageError: the release folder cannot be written.
    """
    bundled = Path(bundled)
    about = Release.model_validate_json((bundled / RELEASE_FILE).read_bytes())
    signed, approval = (bundled / SIGNED_FILE).read_bytes(), (bundled / APPROVAL_FILE).read_bytes()
    index = publish_bundle(Path(folder), decision_id, signed, approval, about)
    if about.pilot is None:
        registry = Registry(store)
        registry.set_champion(registry.version(decision_id, version))
    (Path(out) / "index.json").write_bytes(canonical_bytes(index.model_dump(mode="json")) + b"\n")
    write_figures(out, {"releases": len(index.releases), "release_counter": about.release_counter})
    return index


def read_trust(path: Where) -> Trust:
    """The trust file.

    Raises:
        StorageError: it cannot be read.
        SignatureError: it is none.
    """
    try:
        return parse_trust(Path(path).read_bytes())
    except OSError as error:
        raise StorageError(
            f"trust file {path}", found=error.strerror or str(error), do="Write one: aiotkit keys trust."
        ) from error
