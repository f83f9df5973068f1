from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.pack import MANIFEST, SIGNATURES, read_archive, write_archive
from aiotkit.bundle.sign import Signature, sign
from aiotkit.core.errors import BundleError, IntegrityError, SignatureError

KEY = SigningKey.from_seed(bytes(32))
EMPTY = b'{"format":1,"signatures":[]}'


def tar_of(*members: tarfile.TarInfo | tuple[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> bytes:
    """An archive as any tar program may make it, ending as bundles end."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
        end = tar.offset
    return out.getvalue()[:end] + bytes(1024)


def blob(data: bytes) -> tuple[str, bytes]:
    return f"files/{hashlib.sha256(data).hexdigest()}", data


@given(st.binary(max_size=2000), st.lists(st.binary(max_size=1500), max_size=5))
def test_reading_gives_back_what_was_written(manifest: bytes, files: list[bytes]) -> None:
    """An archive gives back its parts, and writing them again gives the same bytes."""
    signatures = sign("t", manifest, [KEY]).signatures
    data = write_archive(manifest, signatures, files)
    archive = read_archive(data)
    assert (archive.manifest, archive.signatures) == (manifest, signatures)
    assert sorted(archive.blobs.values()) == sorted(set(files))
    assert write_archive(archive.manifest, archive.signatures, archive.blobs.values()) == data


def test_the_order_of_files_and_signatures_leaves_no_trace() -> None:
    """Same content, same bytes, in whatever order it was given."""
    signatures = [Signature("11" * 32, bytes(64)), Signature("22" * 32, bytes(64))]
    one = write_archive(b"m", signatures, [b"a", b"b", b"c"])
    assert one == write_archive(b"m", signatures[::-1], [b"c", b"a", b"b", b"a"])


def test_any_tar_program_reads_a_bundle() -> None:
    """The archive is a plain POSIX tar, byte for byte what Python's own writer makes."""
    data = write_archive(b"the manifest", (), [b"a" * 700])
    assert data == tar_of((MANIFEST, b"the manifest"), (SIGNATURES, EMPTY), blob(b"a" * 700))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert tar.getnames() == [MANIFEST, SIGNATURES, blob(b"a" * 700)[0]]
        member = tar.extractfile(MANIFEST)
        assert member is not None
        assert member.read() == b"the manifest"


def link(kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(blob(b"")[0])
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def owned() -> tarfile.TarInfo:
    info = tarfile.TarInfo(blob(b"")[0])
    info.uid = 1000
    return info


HOSTILE: dict[str, tuple[object, str]] = {
    "climbs out": (("../../etc/cron.d/x", b"x"), "file name '../../etc"),
    "climbs out of files": (("files/../../x", b"x"), "file name"),
    "absolute": (("/etc/passwd", b"x"), "file name '/etc"),
    "backslashes": (("files\\..\\x", b"x"), "file name"),
    "other name": (("files/readme", b"x"), "file name"),
    "long name": (("files/" + "a" * 90, b"x"), "file name"),
    "newline": ((blob(b"x")[0] + "\n", b"x"), "file name"),
    "symbolic link": (link(tarfile.SYMTYPE), "not a plain file"),
    "hard link": (link(tarfile.LNKTYPE), "not a plain file"),
    "device": (link(tarfile.CHRTYPE), "not a plain file"),
    "folder": (link(tarfile.DIRTYPE), "not a plain file|file name"),
    "owner": (owned(), "not a plain file"),
    "executable": (tarfile.TarInfo(blob(b"")[0]), "is not a plain file|wrong end"),
    "second manifest": ((MANIFEST, b"{}"), "each once"),
}
HOSTILE["executable"][0].mode = 0o4755  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_are_refused(name: str) -> None:
    """Paths that climb, links, devices, owners and doubled names are refused before anything is unpacked."""
    member, words = HOSTILE[name]
    with pytest.raises(IntegrityError, match=words):
        read_archive(tar_of((MANIFEST, b"{}"), (SIGNATURES, EMPTY), member))  # type: ignore[arg-type]


def test_a_file_that_is_there_twice_is_refused() -> None:
    """Two members of one name, or members out of order, are refused."""
    head = write_archive(b"{}", (), [])[:-1024]
    one, two = (write_archive(b"{}", (), [data])[len(head) : -1024] for data in (b"one", b"two"))
    small, large = sorted((one, two))
    assert len(read_archive(head + small + large + bytes(1024)).blobs) == 2
    for members in (one + one, large + small):
        with pytest.raises(IntegrityError, match="in order, each once"):
            read_archive(head + members + bytes(1024))


def test_extended_headers_of_newer_tars_are_refused() -> None:
    """PAX and GNU extensions, which can rename and resize what follows, are refused."""
    for kind in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = tar_of(("files/" + "a" * 120, b"x"), kind=kind)
        with pytest.raises(IntegrityError, match="file name"):
            read_archive(data)


def test_missing_parts_are_refused() -> None:
    """Without manifest and signatures in front there is no bundle."""
    for data in (tar_of(), tar_of((SIGNATURES, EMPTY)), tar_of((SIGNATURES, EMPTY), (MANIFEST, b"{}"))):
        with pytest.raises(IntegrityError, match=r"expected manifest\.json, signatures\.json"):
            read_archive(data)


@pytest.mark.parametrize("cut", [0, 1, 100, 511, 512, 513, 1024, 1500, -1, -511, -512, -1024])
def test_U4_a_truncated_archive_is_refused(cut: int) -> None:
    """Wherever an archive is cut off, it is refused."""
    data = write_archive(b"{}", (), [b"a" * 600])
    with pytest.raises(IntegrityError, match="bundle archive"):
        read_archive(data[:cut])


@pytest.mark.parametrize("tail", [b"\0", bytes(512), b"x", b"manifest.json" + bytes(499)])
def test_U4_an_extended_archive_is_refused(tail: bytes) -> None:
    """Bytes behind the end are refused, zeros too."""
    with pytest.raises(IntegrityError, match="wrong end"):
        read_archive(write_archive(b"{}", (), [b"a"]) + tail)


def test_oversized_archives_are_refused_before_they_are_parsed() -> None:
    """Above the limit nothing is looked at; one byte below it is."""
    data = write_archive(b"{}", (), [b"a" * 1000])
    with pytest.raises(IntegrityError, match=f"at most {len(data) - 1} bytes; found {len(data)}"):
        read_archive(data, len(data) - 1)
    assert read_archive(data, len(data)).manifest == b"{}"


def _sized(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.USTAR_FORMAT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (_sized(MANIFEST, 2 << 20), "'manifest.json'; expected at most"),
        (_sized(MANIFEST, 0o77777777777), "'manifest.json'; expected at most"),
        (_sized(MANIFEST, 100), "ends within 'manifest.json'"),
        (_sized(MANIFEST, 8).replace(b"00000000010\0", b"-0000000010\0", 1), "size of 'manifest.json'"),
    ],
)
def test_lying_sizes_are_refused(data: bytes, words: str) -> None:
    """A header cannot announce more than its kind may hold, or more than is there."""
    with pytest.raises(IntegrityError, match=words):
        read_archive(data + bytes(2048) if "ends" not in words else data)


def test_more_files_than_a_bundle_may_hold_are_refused() -> None:
    """The number of files is bounded."""
    with pytest.raises(IntegrityError, match="at most 64 files"):
        read_archive(write_archive(b"{}", (), [b"%d" % i for i in range(65)]))


@pytest.mark.parametrize(
    "listed",
    [b'{"format": 1, "signatures": []}', b'{"format":2,"signatures":[]}', b"", b"[]", b'{"format":1}'],
)
def test_signatures_in_another_form_are_refused(listed: bytes) -> None:
    """The list of signatures has one byte form."""
    head = _reheaded(MANIFEST, b"{}") + _reheaded(SIGNATURES, listed)
    with pytest.raises(BundleError, match=r"signatures\.json"):
        read_archive(head + bytes(1024))


def _reheaded(name: str, data: bytes) -> bytes:
    """A member exactly as the writer would head it, with other content."""
    template = write_archive(data, (), [])[:512]
    block = template.replace(MANIFEST.encode().ljust(100, b"\0"), name.encode().ljust(100, b"\0"))
    blank = block[:148] + b" " * 8 + block[156:]
    block = block[:148] + b"%06o\0 " % sum(blank) + block[156:]
    return block + data + bytes(-len(data) % 512)


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_never_pass_or_crash(data: bytes) -> None:
    """Whatever bytes arrive, the reader refuses them with its own error."""
    with pytest.raises((IntegrityError, SignatureError)):
        read_archive(data)


@given(st.integers(0, 3071), st.binary(min_size=1, max_size=40))
def test_an_archive_overwritten_anywhere_is_refused_or_the_same(at: int, patch: bytes) -> None:
    """No overwritten header or padding is accepted: what is accepted writes back to the same bytes."""
    good = write_archive(b"{}", sign("t", b"{}", [KEY]).signatures, [b"a" * 10])
    at %= len(good) - len(patch)
    bad = good[:at] + patch + good[at + len(patch) :]
    _accepted_only_as_written(bad, read_archive)


def _accepted_only_as_written(data: bytes, read: Callable[[bytes], object]) -> None:
    try:
        archive = read_archive(data)
    except BundleError:
        return
    # contents are not this layer's business, names and frames are
    parts = [_reheaded(MANIFEST, archive.manifest)]
    assert data.startswith(parts[0])
    rewritten = write_archive(archive.manifest, archive.signatures, ())[:-1024]
    assert data.startswith(rewritten)
    assert (
        len(data) == len(rewritten) + sum(512 + len(b) + -len(b) % 512 for b in archive.blobs.values()) + 1024
    )
