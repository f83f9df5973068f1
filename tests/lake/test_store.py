"""Every store of plain files keeps the same promises."""

from __future__ import annotations

import pytest

from aiotkit.core.errors import LakeError

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


def local(root):
    from aiotkit.lake.store import open_store

    return open_store(str(root))


def object_store(root):
    from aiotkit.lake.store import ObjectStore

    return ObjectStore(root.as_uri())


def written_bytes_come_back(store):
    store.write("packs/a.pack", b"0123456789")
    assert store.read("packs/a.pack") == b"0123456789"
    assert store.read("packs/a.pack", 2, 3) == b"234"
    assert store.exists("packs/a.pack")


def writing_again_replaces(store):
    store.write("a/x", b"old and long")
    store.write("a/x", b"new")
    assert store.read("a/x") == b"new"


def listing_is_sorted_and_holds_files_of_that_folder(store):
    assert store.list("m") == ()
    for name in ("m/b", "m/a", "m/deeper/c", "n/d"):
        store.write(name, b"x")
    assert store.list("m") == ("m/a", "m/b")


def missing_and_short_files_are_errors(store):
    with pytest.raises(LakeError, match="file 'm/none' of the lake is missing"):
        store.read("m/none")
    store.write("m/short", b"abc")
    with pytest.raises(LakeError, match="'m/short' of the lake; expected 5 bytes; found 2"):
        store.read("m/short", 1, 5)


def removing_is_repeatable(store):
    store.write("m/x", b"x")
    store.remove("m/x")
    store.remove("m/x")
    assert not store.exists("m/x")


CHECKS = [
    written_bytes_come_back,
    writing_again_replaces,
    listing_is_sorted_and_holds_files_of_that_folder,
    missing_and_short_files_are_errors,
    removing_is_repeatable,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("make", [local, object_store], ids=["local", "object"])
def test_store_keeps_the_promise(make, check, tmp_path):
    """A store writes whole files, reads ranges, lists and removes."""
    check(make(tmp_path))


def test_local_write_leaves_no_scraps_when_it_fails(tmp_path):
    """A write that the disk refuses leaves nothing behind and says why."""
    from aiotkit.core.errors import StorageError
    from aiotkit.lake.store import LocalStore

    (tmp_path / "x").mkdir()
    with pytest.raises(StorageError, match="x"):
        LocalStore(tmp_path).write("x", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
