from __future__ import annotations

import pytest
from worlds.bundles import (
    bundle_files,
    decision_of,
    expectation,
    signed_archive,
    trust_and_keys,
    unsigned_bundle,
)

from aiotkit.bundle.pack import write_archive
from aiotkit.bundle.unsigned import make_unsigned, read_unsigned, sign_archive
from aiotkit.bundle.verify import verify_bundle
from aiotkit.core.errors import GoldenError, IntegrityError, SignatureError

TRUST, (ONE, TWO), _, _ = trust_and_keys()


def test_signing_in_turn_makes_a_bundle_that_verifies() -> None:
    """An unsigned bundle is signed by one person after the other; its identity never changes."""
    bundle = unsigned_bundle()
    first = sign_archive(bundle.archive(), [ONE])
    with pytest.raises(SignatureError, match="found 1 "):
        verify_bundle(first, TRUST, expectation())
    both = sign_archive(first, [TWO])
    assert verify_bundle(both, TRUST, expectation()).digest == bundle.digest
    assert both == bundle.archive([TWO, ONE]) == signed_archive()


def test_looking_into_an_archive_gives_its_parts() -> None:
    """What was packed is found again, with the ids of those who signed."""
    unsigned, envelope = read_unsigned(signed_archive(5))
    assert unsigned.manifest.release_counter == 5
    assert dict(unsigned.files) == bundle_files()
    assert {s.key_id for s in envelope.signatures} == {ONE.public.key_id, TWO.public.key_id}


def test_nobody_signs_a_damaged_bundle() -> None:
    """Signing refuses an archive whose files are not what its manifest says."""
    bundle = unsigned_bundle()
    files = list(bundle.files.values())[1:]
    with pytest.raises(IntegrityError, match="is missing"):
        sign_archive(write_archive(bundle.manifest.canonical(), (), files), [ONE])


def test_nobody_signs_a_bundle_that_decides_otherwise_here() -> None:
    """Signing refuses a bundle whose golden cases fail."""
    files = bundle_files(rule=[{"otherwise": "slow"}])
    files |= {name: bundle_files()[name] for name in ("golden.json", "golden.bin")}
    decision = decision_of(rule=[{"otherwise": "slow"}])
    wrong = make_unsigned(decision, files, release_counter=1)
    with pytest.raises(GoldenError, match="'ordinary-0': proposed"):
        sign_archive(wrong.archive(), [ONE])
