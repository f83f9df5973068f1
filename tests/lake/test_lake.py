"""A lake keeps what it acknowledged, refuses what does not fit, and reads any version."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aiotkit.core.errors import LakeError, StorageError

pa = pytest.importorskip("pyarrow")
pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


def test_create_makes_every_table_up_front_and_is_repeatable(tmp_path):
    """A second create changes nothing, and open finds every table empty."""
    from aiotkit.lake.lake import Lake
    from aiotkit.lake.schemas import TABLES

    lake = Lake.create(tmp_path / "deep" / "lake")
    assert lake.versions() == dict.fromkeys(TABLES, 0)
    Lake.create(tmp_path / "deep" / "lake")
    again = Lake.open(f"file://{tmp_path}/deep/lake")
    assert again.versions() == dict.fromkeys(TABLES, 0)
    for table in TABLES.values():
        assert again.read(table.name).schema.names == table.schema.names


def test_append_and_read_give_the_same_rows(lake, telemetry):
    """Rows come back with their types, by column and by filter, and carry their month."""
    lake.append("telemetry", telemetry(40))
    rows = lake.read("telemetry", columns=["value"], where=[("value", ">=", 38.0)])
    assert sorted(rows["value"].to_pylist()) == [38.0, 39.0]
    months = set(lake.read("telemetry")["month"].to_pylist())
    assert months == {"2026-09", "2026-10"}
    where = [("subject", "=", "press-1"), ("value", "<", 1.0)]
    assert sum(b.num_rows for b in lake.batches("telemetry", where=where)) == 1


def test_old_version_reads_as_it_was(lake, telemetry):
    """A version is what the table held after that commit, whatever came later."""
    versions = [lake.append("telemetry", telemetry(3, i)) for i in range(3)]
    assert [lake.read("telemetry", version=v).num_rows for v in versions] == [3, 6, 9]


def test_watermark_moves_with_the_rows_and_never_back(lake, telemetry):
    """Rows under a watermark that does not grow are refused, and nothing of them is added."""
    lake.append("telemetry", telemetry(2), transactions={"a": 5, "b": 1})
    assert (lake.watermark("a", table="telemetry"), lake.watermark("b", table="telemetry")) == (5, 1)
    assert lake.watermark("a") is None
    for mark in (5, 4):
        with pytest.raises(LakeError, match="watermark 'a'; expected a value above 5"):
            lake.append("telemetry", telemetry(2), transactions={"a": mark, "b": 9})
    assert lake.read("telemetry").num_rows == 2
    assert lake.watermarks(["a", "b", "c"], table="telemetry") == {"a": 5, "b": 1}


def test_watermarks_outlive_checkpoints(lake, telemetry):
    """A watermark that stood still since before the last checkpoint of the log is still known."""
    lake.append("telemetry", telemetry(1), transactions={"still": 7, "busy": 1})
    lake.table("telemetry").create_checkpoint()
    lake.append("telemetry", telemetry(1), transactions={"busy": 2})
    assert lake.watermarks(["still", "busy"], table="telemetry") == {"still": 7, "busy": 2}


def test_processes_append_side_by_side(lake):
    """Three processes that append at once lose no row."""
    code = (
        "import sys, pyarrow as pa; from aiotkit.lake.lake import Lake\n"
        "lake = Lake.open(sys.argv[1])\n"
        "for i in range(5):\n"
        "    lake.append('quarantine', pa.table({'source': [sys.argv[2]], 'row': [i], 'reason': ['x'],"
        " 'content': ['{}'], 'at': [0]}))\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, lake.uri, str(n)]) for n in range(3)]
    assert [p.wait(60) for p in running] == [0, 0, 0]
    rows = lake.read("quarantine").to_pylist()
    assert len({(r["source"], r["row"]) for r in rows}) == len(rows) == 15


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.rename_columns(["subjct", *t.column_names[1:]]), "unknown column 'subjct'.*'subject'"),
        (lambda t: t.drop_columns(["source"]), "column 'source' is missing"),
        (lambda t: t.set_column(0, "subject", pa.nulls(2, pa.string())), "expected no empty values; found 2"),
        (lambda t: t.set_column(3, "value", pa.array(["a", "b"])), "'value'; expected double; found string"),
        (
            lambda t: t.set_column(2, "at", t["at"].cast(pa.timestamp("us"))),
            "expected instants with a time zone; found timestamp",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused(lake, telemetry, change, words):
    """The message names the column and what is wrong with it; nothing is added."""
    with pytest.raises(LakeError, match=words):
        lake.append("telemetry", change(telemetry(2)))
    assert lake.versions()["telemetry"] == 0


def test_instants_of_any_zone_become_utc(lake, telemetry):
    """An instant keeps its meaning when it comes with another zone."""
    rows = telemetry(1)
    zoned = rows["at"].cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us", tz="Europe/Berlin"))
    lake.append("telemetry", rows.set_column(2, "at", zoned))
    assert lake.read("telemetry")["at"].cast(pa.int64()).to_pylist() == rows["at"].to_pylist()


def test_unknown_names_get_a_hint(lake):
    """A typing error in a table or column name is named and corrected."""
    with pytest.raises(LakeError, match=r"no table 'telemetri'.*did you mean 'telemetry'"):
        lake.read("telemetri")
    with pytest.raises(LakeError, match=r"no column 'valu'.*did you mean 'value'"):
        lake.read("telemetry", columns=["valu"])
    with pytest.raises(LakeError, match="at version 99 cannot be opened"):
        lake.read("telemetry", version=99)


@pytest.mark.parametrize(
    ("number", "words"),
    [("2", "Update aiotkit"), (None, "no table of an aiotkit lake")],
)
def test_table_of_another_format_is_refused(tmp_path, lake, number, words):
    """A lake of a later format, or a foreign Delta table in its place, is not opened."""
    import shutil

    from deltalake import DeltaTable

    from aiotkit.lake.lake import Lake
    from aiotkit.lake.schemas import FORMAT_PROPERTY, LABELS

    shutil.rmtree(tmp_path / "lake" / "labels")
    DeltaTable.create(
        tmp_path / "lake" / "labels",
        LABELS.schema,
        configuration={FORMAT_PROPERTY: number} if number else None,
        raise_if_key_not_exists=False,
    )
    with pytest.raises(LakeError, match=f"aiotkit.format; expected 1; found {number}.*{words}"):
        Lake.open(lake.uri)
    with pytest.raises(LakeError, match=r"aiotkit\.format"):
        Lake.create(lake.uri)


def test_table_with_other_columns_is_refused(lake, telemetry):
    """A column that another program added is found at open, by name."""
    from deltalake import Field
    from deltalake.schema import PrimitiveType

    from aiotkit.lake.lake import Lake

    lake.table("outcomes").alter.add_columns([Field("mood", PrimitiveType("string"))])
    with pytest.raises(LakeError, match="columns mood differ"):
        Lake.open(lake.uri)


def test_missing_lake_says_what_to_do(tmp_path):
    """What is not there is a wrong input, with a hint; a folder without tables (a mount) is a wrong place."""
    from aiotkit.core.errors import NoLakeError
    from aiotkit.lake.lake import Lake

    with pytest.raises(NoLakeError, match=r"nothing: there is no lake.*or create the lake") as caught:
        Lake.open(tmp_path / "nothing")
    assert caught.value.exit_code == 2
    Lake.create(tmp_path / "lake")
    with pytest.raises(NoLakeError, match="Did you mean 'lake'"):
        Lake.open(tmp_path / "laek")
    (tmp_path / "mount").mkdir()
    with pytest.raises(LakeError, match=r"table 'telemetry' is not there. Create the lake") as caught:
        Lake.open(tmp_path / "mount")
    assert caught.value.exit_code == 3
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        Lake.create(tmp_path / "file" / "lake")


def test_rows_cannot_be_deleted_or_overwritten(lake, telemetry):
    """Tables take rows only: not even another Delta program may remove one."""
    from deltalake.exceptions import CommitFailedError

    lake.append("telemetry", telemetry(3))
    with pytest.raises(CommitFailedError, match="append-only"):
        lake.table("telemetry").delete("value > 0")
    assert lake.read("telemetry").num_rows == 3


def test_rows_are_replaced_in_one_commit_and_stay_in_old_versions(lake, telemetry):
    """Only rows that fit go, others are refused, and the table is append-only as before."""
    lake.append("telemetry", telemetry(3, subject="wrong"))
    version = lake.append("telemetry", telemetry(2, subject="right"))
    lake.replace("telemetry", telemetry(4, subject="wrong"), "subject = 'wrong'", transactions={"fix": 1})
    assert lake.read("telemetry")["subject"].to_pylist().count("wrong") == 4
    assert lake.read("telemetry").num_rows == 6
    assert lake.read("telemetry", version=version).num_rows == 5
    assert lake.watermark("fix", table="telemetry") == 1
    with pytest.raises(LakeError, match="rows cannot be written"):
        lake.replace("telemetry", telemetry(1, subject="other"), "subject = 'wrong'")
    with pytest.raises(LakeError, match="expected a value above 1; found 1"):
        lake.replace("telemetry", telemetry(1), "true", transactions={"fix": 1})
    assert lake.read("telemetry").num_rows == 6
    assert lake.table("telemetry").metadata().configuration["delta.appendOnly"] == "true"


def test_every_commit_is_synced_before_it_is_acknowledged(lake, telemetry, monkeypatch):
    """Data files, the log entry and their folders have been fsynced when append returns."""
    import os
    from pathlib import Path

    synced = set()
    real = os.fsync

    def fsync(handle):
        synced.add(Path(f"/proc/self/fd/{handle}").readlink().name)
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    version = lake.append("telemetry", telemetry(40))
    files = {Path(uri).name for uri in lake.table("telemetry").file_uris()}
    wanted = files | {f"{version:020d}.json", "_delta_log", "month=2026-09", "month=2026-10", "telemetry"}
    assert wanted <= synced
    assert len(files) == 2


def test_object_store_uri_works_like_a_folder(tmp_path, telemetry):
    """The same calls work through the object-store path (here: its in-process file backend)."""
    from aiotkit.core.canonical import digest
    from aiotkit.lake.blobs import Blobs
    from aiotkit.lake.lake import Lake
    from aiotkit.lake.store import ObjectStore

    lake = Lake.create(tmp_path / "lake")
    lake.store = ObjectStore(f"file://{tmp_path}/lake")
    blobs = Blobs(lake)
    data = b"window"
    blobs.put({digest(data): data})
    assert blobs.get([digest(data)]) == {digest(data): data}


def test_a_damaged_log_is_named_in_one_line(lake):
    """The library's own trace is no message for people."""
    from aiotkit.lake.lake import Lake

    log = next(p for p in __import__("pathlib").Path(lake.table_uri("telemetry")).glob("_delta_log/*.json"))
    log.write_bytes(b"{garbage")
    with pytest.raises(LakeError, match="cannot be opened") as caught:
        Lake.open(lake.uri)
    assert "\n" not in str(caught.value)
