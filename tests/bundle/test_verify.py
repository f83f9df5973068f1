from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.bundles import (
    bundle_files,
    expectation,
    signed_archive,
    signing_key,
    trust_and_keys,
    unsigned_bundle,
)

from aiotkit.bundle.manifest import Manifest
from aiotkit.bundle.pack import read_archive, write_archive
from aiotkit.bundle.sign import BUNDLE_TYPE, OPERATOR_TYPE, Signature, sign
from aiotkit.bundle.verify import verify_bundle
from aiotkit.core.errors import (
    BundleError,
    IntegrityError,
    MismatchError,
    RollbackRefused,
    SignatureError,
)

TRUST, (ONE, TWO), OPERATOR, COLLECTOR = trust_and_keys()
SMALL = signed_archive(small=True)


def test_a_valid_bundle_gives_out_its_files(archive: bytes, files: Mapping[str, bytes]) -> None:
    """A bundle signed by enough keys, for this place, gives its files, identity and archive."""
    bundle = verify_bundle(archive, TRUST, expectation())
    assert dict(bundle.files) == dict(files)
    assert bundle.digest == bundle.manifest.digest == unsigned_bundle().digest
    assert bundle.archive == archive


def test_T3_one_key_is_not_enough() -> None:
    """One of two release keys installs nothing."""
    with pytest.raises(SignatureError, match="2 of 2 trusted keys; found 1"):
        verify_bundle(signed_archive(keys=[ONE]), TRUST, expectation())


@pytest.mark.parametrize(
    "signers", [[], [ONE, ONE], [ONE, OPERATOR], [OPERATOR, COLLECTOR], [ONE, signing_key("stranger")]]
)
def test_keys_that_may_not_release_do_not_count(signers: list[Any]) -> None:
    """Unsigned, one key twice, keys of other roles and strangers' keys are refused."""
    with pytest.raises(SignatureError, match=r"2 of 2 trusted keys; found [01] "):
        verify_bundle(signed_archive(keys=signers), TRUST, expectation())


def test_one_key_listed_twice_does_not_count_twice() -> None:
    """The same signature written into the archive twice stays one."""
    bundle = unsigned_bundle()
    mine = sign(BUNDLE_TYPE, bundle.manifest.canonical(), [ONE]).signatures
    data = write_archive(bundle.manifest.canonical(), mine * 2, bundle.files.values())
    with pytest.raises(SignatureError, match="found 1 "):
        verify_bundle(data, TRUST, expectation())


def test_signatures_made_for_another_purpose_do_not_count() -> None:
    """A manifest signed as an operator's message is no released bundle."""
    bundle = unsigned_bundle()
    theirs = sign(OPERATOR_TYPE, bundle.manifest.canonical(), [ONE, TWO]).signatures
    data = write_archive(bundle.manifest.canonical(), theirs, bundle.files.values())
    with pytest.raises(SignatureError, match="does not fit"):
        verify_bundle(data, TRUST, expectation())


@pytest.mark.parametrize(
    ("made", "here", "words"),
    [
        ({}, {"decision_id": "other"}, "decision; expected other; found bearing-test"),
        ({"hardware": ("aarch64",)}, {}, "hardware; expected x86_64; found aarch64"),
        ({"hardware": ("aarch64", "riscv64")}, {}, "hardware"),
        ({}, {"site": "hall-2"}, "site; expected hall-2; found hall-1"),
        ({"site": ("hall-2", "hall-3")}, {}, "site; expected hall-1; found hall-2, hall-3"),
        ({}, {"runtime": "0.0.9"}, "min_runtime"),
    ],
)
def test_U6_a_bundle_for_elsewhere_is_refused(made: dict[str, Any], here: dict[str, Any], words: str) -> None:
    """A valid bundle for another decision, hardware, site or runtime is refused, and says for which."""
    with pytest.raises(MismatchError, match=words):
        verify_bundle(signed_archive(**made), TRUST, expectation(**here))


@pytest.mark.parametrize(
    "made",
    [{"hardware": ("x86_64",)}, {"hardware": ("aarch64", "x86_64"), "site": "any"}, {"site": ("hall-1",)}],
)
def test_a_bundle_for_this_place_among_others_is_accepted(made: dict[str, Any]) -> None:
    """A place is accepted when it is named, or when any will do."""
    assert verify_bundle(signed_archive(**made), TRUST, expectation()).manifest.release_counter == 1


def test_U5_a_release_below_the_floor_is_refused() -> None:
    """An older release is refused; the one at the floor and newer ones are not."""
    for floor in (0, 2, 3):
        assert verify_bundle(signed_archive(3), TRUST, expectation(floor=floor)).manifest.release_counter == 3
    with pytest.raises(RollbackRefused, match="at least 4, the floor of this device; found 3"):
        verify_bundle(signed_archive(3), TRUST, expectation(floor=4))


def test_U6_files_of_two_valid_bundles_do_not_mix() -> None:
    """One release's manifest with any file of another is refused, though both are validly signed."""
    one = read_archive(signed_archive(1))
    two = read_archive(signed_archive(2, rule=[{"otherwise": "slow"}]))
    own = set(one.blobs) - set(two.blobs)
    foreign = set(two.blobs) - set(one.blobs)
    assert own
    assert foreign
    for mine in own:
        for theirs in foreign:
            blobs = {k: v for k, v in one.blobs.items() if k != mine} | {theirs: two.blobs[theirs]}
            mixed = write_archive(one.manifest, one.signatures, blobs.values())
            with pytest.raises(IntegrityError, match="is missing"):
                verify_bundle(mixed, TRUST, expectation())
            under_its_name = _renamed(mixed, theirs, mine)
            with pytest.raises(IntegrityError):
                verify_bundle(under_its_name, TRUST, expectation())


def test_U6_signatures_of_one_release_do_not_serve_another() -> None:
    """Manifest and files of one release with the signatures of another are refused."""
    one, two = read_archive(signed_archive(1)), read_archive(signed_archive(2))
    with pytest.raises(SignatureError, match="does not fit"):
        verify_bundle(write_archive(two.manifest, one.signatures, two.blobs.values()), TRUST, expectation())


def _renamed(archive: bytes, old: str, new: str) -> bytes:
    """A file's bytes under another file's name, headers all in order: only its digest tells."""
    at = archive.index(b"files/" + old.encode())
    block = bytearray(archive[at : at + 512])
    block[:70] = b"files/" + new.encode()
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    rest = archive[:at] + bytes(block) + archive[at + 512 :]
    members = _members(rest)
    return b"".join([*members[:2], *sorted(members[2:])]) + bytes(1024)


def _members(archive: bytes) -> list[bytes]:
    found, at = [], 0
    while any(archive[at : at + 512]):
        size = int(archive[at + 124 : at + 135], 8)
        end = at + 512 + size + -size % 512
        found.append(archive[at:end])
        at = end
    return found


def test_a_file_that_is_not_what_the_manifest_promises_is_refused() -> None:
    """Other bytes of the same length under the promised name are found by their digest."""
    bundle = unsigned_bundle()
    name = bundle.manifest.files["interface.json"].sha256
    archive = bundle.archive([ONE, TWO])
    at = archive.index(b"files/" + name.encode()) + 512
    with pytest.raises(IntegrityError, match=r"'interface\.json'; expected sha256"):
        verify_bundle(archive[:at] + b"[" + archive[at + 1 :], TRUST, expectation())


def test_a_file_of_another_length_is_refused() -> None:
    """The promised size counts too: a manifest that lies about it refuses itself."""
    bundle = unsigned_bundle()
    plain = json.loads(bundle.manifest.canonical())
    plain["files"]["card.json"]["size"] += 1
    lying = Manifest.model_validate(plain).canonical()
    data = write_archive(lying, sign(BUNDLE_TYPE, lying, [ONE, TWO]).signatures, bundle.files.values())
    with pytest.raises(IntegrityError, match=r"'card\.json'; expected \d+ bytes"):
        verify_bundle(data, TRUST, expectation())


def test_U6_missing_and_extra_files_are_refused() -> None:
    """A file too few or too many is refused, though every other one is right."""
    bundle = unsigned_bundle()
    manifest = bundle.manifest.canonical()
    signatures = sign(BUNDLE_TYPE, manifest, [ONE, TWO]).signatures
    for path in bundle.files:
        fewer = [data for name, data in bundle.files.items() if name != path]
        with pytest.raises(IntegrityError, match=f"'{path}' is missing"):
            verify_bundle(write_archive(manifest, signatures, fewer), TRUST, expectation())
    more = [*bundle.files.values(), b"one more"]
    extra = hashlib.sha256(b"one more").hexdigest()
    with pytest.raises(IntegrityError, match=f"does not name; found {extra}"):
        verify_bundle(write_archive(manifest, signatures, more), TRUST, expectation())


def test_signatures_are_judged_before_the_manifest_is_read() -> None:
    """A manifest nobody signed is not even parsed: the error is about signatures."""
    data = write_archive(b"\xff not JSON", (), ())
    with pytest.raises(SignatureError, match="2 of 2 trusted keys"):
        verify_bundle(data, TRUST, expectation())


def test_a_manifest_signed_but_malformed_is_refused() -> None:
    """Signatures do not make a manifest of another format readable."""
    for manifest in (b"{}", unsigned_bundle().manifest.canonical() + b"\n"):
        data = write_archive(manifest, sign(BUNDLE_TYPE, manifest, [ONE, TWO]).signatures, ())
        with pytest.raises(IntegrityError, match=r"manifest\.json"):
            verify_bundle(data, TRUST, expectation())


def _refused(data: bytes) -> None:
    with pytest.raises(BundleError):
        verify_bundle(data, TRUST, expectation())


def _flip(data: bytes, at: int, mask: int) -> bytes:
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def _front(archive: bytes) -> int:
    """Where manifest and signatures end, with their headers and padding."""
    return archive.index(b"files/" + min(read_archive(archive).blobs).encode())


def test_U3_every_byte_of_manifest_and_signatures() -> None:
    """Any byte of headers, manifest, signatures or their padding changed: refused."""
    assert verify_bundle(SMALL, TRUST, expectation())
    front = _front(SMALL)
    assert front > 2048
    for at in range(front):
        _refused(_flip(SMALL, at, 1 << at % 8))


@given(st.integers(0, 1 << 40), st.integers(1, 255))
def test_U3_any_byte_sampled(at: int, mask: int) -> None:
    """Any byte of a bundle changed to any other value: refused."""
    _refused(_flip(SMALL, at % len(SMALL), mask))


@pytest.mark.faults
def test_U3_every_byte_of_a_whole_bundle() -> None:
    """Every byte of a bundle of at most 64 kB, changed in every bit position over the run: refused."""
    assert len(SMALL) <= 64 << 10
    for at in range(len(SMALL)):
        _refused(_flip(SMALL, at, 1 << at % 8))
        _refused(_flip(SMALL, at, 0xFF))


@pytest.mark.faults
def test_U3_a_hundred_thousand_random_bytes_of_a_large_bundle(archive: bytes) -> None:
    """Random changes of one to four bytes in a large bundle: refused, every one."""
    import random

    rng = random.Random(3)
    for _ in range(100_000):
        bad = bytearray(archive)
        for _ in range(rng.randint(1, 4)):
            bad[rng.randrange(len(bad))] ^= rng.randint(1, 255)
        if bad != archive:
            _refused(bytes(bad))


@given(st.data())
def test_U4_truncated_extended_or_spliced_bundles_are_refused(data: st.DataObject) -> None:
    """Cut anywhere, with anything behind, or with a part repeated: refused."""
    archive = SMALL
    at = data.draw(st.integers(0, len(archive) - 1))
    end = data.draw(st.integers(0, len(archive)))
    tail = data.draw(st.binary(min_size=1, max_size=600))
    _refused(archive[:at])
    _refused(archive + tail)
    if archive[:at] + archive[end:] != archive:
        _refused(archive[:at] + archive[end:])


def test_the_bundle_of_the_tests_is_what_it_says() -> None:
    """Overrides make another decision with golden cases of its own; without them files are as committed."""
    changed = bundle_files(rule=[{"otherwise": "slow"}])
    assert changed["decision.json"] != bundle_files()["decision.json"]
    assert changed["golden.json"] != bundle_files()["golden.json"]
    assert changed["graph.onnx"] == bundle_files()["graph.onnx"]


def test_a_signature_by_an_unknown_key_changes_nothing() -> None:
    """A bundle that was also signed by a key this device does not know is accepted."""
    keys = [ONE, TWO, signing_key("next year's key")]
    assert verify_bundle(signed_archive(keys=keys), TRUST, expectation())
    bundle = unsigned_bundle()
    junk = Signature("ab" * 32, b"junk")
    signatures = (*sign(BUNDLE_TYPE, bundle.manifest.canonical(), [ONE, TWO]).signatures, junk)
    data = write_archive(bundle.manifest.canonical(), signatures, bundle.files.values())
    assert verify_bundle(data, TRUST, expectation())
