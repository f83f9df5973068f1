"""Blobs come back by digest, or not at all."""

from __future__ import annotations

import pytest

from aiotkit.core.canonical import digest
from aiotkit.core.errors import IntegrityError, LakeError

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


def some(n, start=0):
    blobs = (bytes([i % 256]) * (i % 7) + str(i).encode() for i in range(start, start + n))
    return {digest(b): b for b in blobs}


def test_blobs_come_back_from_several_packs(lake):
    """Every digest gives its bytes, whichever pack they lie in; an empty blob too."""
    from aiotkit.lake.blobs import Blobs

    blobs = Blobs(lake)
    first, second = some(30), some(30, 30) | {digest(b""): b""}
    blobs.put(first)
    blobs.put(second)
    assert blobs.get(first | second) == first | second
    assert blobs.find([next(iter(first)), "sha256:no"]) == {next(iter(first))}
    assert len(lake.store.list("packs")) == 2


def test_wrong_digest_is_refused_before_anything_is_written(lake):
    """Bytes under another digest never enter."""
    from aiotkit.lake.blobs import Blobs

    with pytest.raises(IntegrityError, match="blob; expected sha256:00"):
        Blobs(lake).put({"sha256:00": b"x"})
    assert lake.store.list("packs") == ()


def test_missing_blob_is_named(lake):
    """A digest that was never kept is an error that names it, and how many more."""
    from aiotkit.lake.blobs import Blobs

    with pytest.raises(LakeError, match="blob sha256:01 and 1 more; found no row"):
        Blobs(lake).get(["sha256:01", "sha256:02"])


def test_changed_pack_is_detected(lake):
    """A flipped byte in a pack is found when the blob is read."""
    from aiotkit.lake.blobs import Blobs

    blobs = some(5)
    Blobs(lake).put(blobs)
    (pack,) = lake.store.list("packs")
    data = bytearray(lake.store.read(pack))
    data[-1] ^= 1
    lake.store.write(pack, bytes(data))
    with pytest.raises(IntegrityError, match=r"pack .*\.pack at"):
        Blobs(lake).get(blobs)


def test_index_as_of_a_version(lake):
    """A pinned version of the index finds what was kept then, and only that."""
    from aiotkit.lake.blobs import Blobs

    blobs = Blobs(lake)
    blobs.put(some(3), transactions={"s": 1})
    version = lake.versions()["blobs"]
    blobs.put(some(3, 100), transactions={"s": 2})
    assert blobs.get(some(3), version=version) == some(3)
    assert blobs.find(some(3, 100), version=version) == set()
    assert lake.watermark("s", table="blobs") == 2
