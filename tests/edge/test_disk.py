"""The disk seam: the real disk and the disk of the tests keep the same promises."""

from __future__ import annotations

import errno
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.crash import CrashDisk, Op, crash_states

from aiotkit.core.errors import StorageError
from aiotkit.edge.disk import Disk, RealDisk, make_folder, replace


def grows(disk: Disk) -> None:
    disk.append("log", b"one")
    disk.append("log", b"two")
    disk.sync("log")
    assert disk.read("log") == b"onetwo"
    assert disk.read("log", 2, 2) == b"et"
    assert disk.size("log") == 6


def cuts(disk: Disk) -> None:
    disk.append("log", b"onetwo")
    disk.truncate("log", 3)
    disk.append("log", b"2")
    assert disk.read("log") == b"one2"


def replaces(disk: Disk) -> None:
    replace(disk, "file", b"old")
    replace(disk, "file", b"new")
    assert disk.read("file") == b"new"
    assert disk.list("") == ("file",)


def keeps_appending_to_the_new_file(disk: Disk) -> None:
    disk.append("log", b"old")
    disk.write("aside", b"new")
    disk.rename("aside", "log")
    disk.append("log", b"er")
    assert disk.read("log") == b"newer"


def makes_folders(disk: Disk) -> None:
    make_folder(disk, "a/b")
    make_folder(disk, "a/b")
    disk.write("a/b/file", b"x")
    assert disk.list("a") == ("b",)
    assert disk.list("a/b") == ("file",)
    assert disk.list("nowhere") == ()
    assert disk.size("a/b") is None
    with pytest.raises(StorageError) as trouble:
        disk.rmdir("a/b")
    assert trouble.value.errno == errno.ENOTEMPTY
    disk.unlink("a/b/file")
    disk.rmdir("a/b")
    assert disk.list("a") == ()


def names_what_is_missing(disk: Disk) -> None:
    for act in (
        lambda: disk.read("gone"),
        lambda: disk.unlink("gone"),
        lambda: disk.sync("gone"),
        lambda: disk.truncate("gone", 0),
        lambda: disk.rename("gone", "other"),
        lambda: disk.append("no/folder", b"x"),
    ):
        with pytest.raises(StorageError) as trouble:
            act()
        assert trouble.value.errno == errno.ENOENT
    assert disk.size("gone") is None


def has_one_writer(disk: Disk) -> None:
    with disk.lock("lock"), pytest.raises(StorageError, match=r"in use.*one writer.*Stop that process"):
        disk.lock("lock")
    again = disk.lock("lock")
    again.release()
    again.release()


CHECKS = [
    grows,
    cuts,
    replaces,
    keeps_appending_to_the_new_file,
    makes_folders,
    names_what_is_missing,
    has_one_writer,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("kind", ["real", "crash"])
def test_every_disk_keeps_the_promise(check, kind, tmp_path):
    """The disk of the tests behaves as the real one, or the crash tests would prove nothing."""
    disk: Disk = RealDisk(tmp_path) if kind == "real" else CrashDisk()
    check(disk)
    disk.close()


def test_the_lock_names_its_holder_and_dies_with_it(tmp_path):
    """A lock held by another process names that process, and is free once that process is killed."""
    code = "import sys,time;from pathlib import Path;from aiotkit.edge.disk import RealDisk\n"
    code += "l=RealDisk(Path(sys.argv[1])).lock('lock');print('held',flush=True);time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(StorageError, match=f"process {other.pid} holding it"):
            RealDisk(tmp_path).lock("lock")
        other.send_signal(signal.SIGKILL)
        other.wait()
    RealDisk(tmp_path).lock("lock").release()


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../b"])
def test_paths_stay_inside(tmp_path, path):
    """No path leads out of the state folder."""
    with pytest.raises(StorageError, match="relative path inside"):
        RealDisk(tmp_path).write(path, b"x")


def test_a_full_file_system_keeps_its_number(tmp_path):
    """A write that the system refuses is a StorageError with the system's errno and advice."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        disk = RealDisk(tmp_path)
        with pytest.raises(StorageError, match="cannot append to") as trouble:
            disk.append("log", bytes(2000))
        disk.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert trouble.value.errno == errno.EFBIG
    assert RealDisk(tmp_path).size("log") == 1000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_no_space_says_what_to_do(tmp_path):
    """ENOSPC tells the plant engineer that nothing acknowledged is lost."""
    (tmp_path / "log").symlink_to("/dev/full")
    disk = RealDisk(tmp_path)
    with pytest.raises(
        StorageError, match="Free space on the disk; nothing that was acknowledged is lost"
    ) as e:
        disk.append("log", b"x")
    disk.close()
    assert e.value.errno == errno.ENOSPC


def _outcomes(script) -> set[bytes | None]:
    disk = CrashDisk({"file": b"old"})
    script(disk)
    return {state.files.get("file") for state in crash_states(disk)}


def test_J2_replace_leaves_old_or_new():
    """A power cut anywhere in ``replace`` leaves the old content or the new, whole."""
    assert _outcomes(lambda disk: replace(disk, "file", b"new!")) == {b"old", b"new!"}


def test_J2_the_test_disk_forgets_what_was_not_synced():
    """Each step that ``replace`` takes is needed: leaving one out breaks a state."""

    def without_sync(disk: CrashDisk) -> None:
        disk.write("file.new", b"new!")
        disk.rename("file.new", "file")
        disk.sync_folder("")

    def in_place(disk: CrashDisk) -> None:
        disk.write("file", b"new!")
        disk.sync("file")

    def unlink_first(disk: CrashDisk) -> None:
        disk.write("file.new", b"new!")
        disk.sync("file.new")
        disk.unlink("file")
        disk.rename("file.new", "file")
        disk.sync_folder("")

    assert b"\0\0\0\0" in _outcomes(without_sync)
    assert b"" in _outcomes(in_place)
    assert None in _outcomes(unlink_first)


def test_J2_replace_is_durable_on_return():
    """After ``replace`` has returned, only the new content can be found; without the folder's sync, not."""
    for with_folder in (True, False):
        disk = CrashDisk({"file": b"old"})
        disk.write("file.new", b"new!")
        disk.sync("file.new")
        disk.rename("file.new", "file")
        if with_folder:
            disk.sync_folder("")
        disk.note("done")
        found = {s.files.get("file") for s in crash_states(disk) if s.notes}
        assert found == ({b"new!"} if with_folder else {b"old", b"new!"})


def test_J2_a_failed_sync_drops_what_was_unsynced():
    """After a failed sync a later successful one does not make the earlier bytes durable."""
    failing = [True]
    disk = CrashDisk(fail=lambda op: errno.EIO if op.kind == "sync" and failing and failing.pop() else None)
    disk.write("file", b"first")
    disk.sync_folder("")
    with pytest.raises(StorageError, match="cannot sync file") as trouble:
        disk.sync("file")
    assert trouble.value.errno == errno.EIO
    disk.append("file", b"second")
    disk.sync("file")
    disk.note("synced")
    found = {state.files["file"] for state in crash_states(disk) if state.notes}
    assert b"\0\0\0\0\0second" in found


def test_the_test_disk_runs_full():
    """A disk of a given capacity takes what fits and refuses the rest with ENOSPC."""
    disk = CrashDisk(capacity=10)
    disk.write("a", b"12345678")
    with pytest.raises(StorageError) as trouble:
        disk.append("a", b"9abc")
    assert trouble.value.errno == errno.ENOSPC
    assert disk.used <= 10
    assert isinstance(disk.ops[-1], Op)
