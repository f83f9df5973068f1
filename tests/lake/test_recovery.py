"""After a power cut a lake opens with everything it acknowledged."""

from __future__ import annotations

import pytest

from aiotkit.core.errors import LakeError

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


@pytest.fixture
def last(lake, telemetry, tmp_path):
    """A table whose third commit will be torn: its log entry and one of its data files."""
    for i in range(3):
        lake.append("telemetry", telemetry(2, i), transactions={"s": i + 1})
    before = set(lake.table("telemetry", 2).file_uris())
    (new,) = set(lake.table("telemetry").file_uris()) - before
    entry = tmp_path / "lake" / "telemetry" / "_delta_log" / f"{3:020d}.json"
    return entry, tmp_path / "lake" / "telemetry" / new.split("/telemetry/")[1]


def tear(entry, data, how):
    if how == "empty entry":
        entry.write_bytes(b"")
    elif how == "zeroed entry":
        entry.write_bytes(bytes(entry.stat().st_size))
    elif how == "cut entry":
        entry.write_bytes(entry.read_bytes()[:-20])
    elif how == "cut data":
        data.write_bytes(data.read_bytes()[:-1])
    else:
        data.unlink()


@pytest.mark.parametrize("how", ["empty entry", "zeroed entry", "cut entry", "cut data", "no data"])
def test_J2_torn_last_commit_is_put_aside(lake, telemetry, last, how):
    """A commit that was never made durable goes, with its watermark; it can be made again."""
    from aiotkit.lake.lake import Lake
    from aiotkit.lake.recovery import mend

    tear(*last, how)
    assert mend(lake) == ("telemetry/3",)
    again = Lake.open(lake.uri)
    assert again.watermark("s", table="telemetry") == 2
    assert again.read("telemetry").num_rows == 4
    again.append("telemetry", telemetry(2, 2), transactions={"s": 3})
    assert again.read("telemetry").num_rows == 6
    assert mend(again) == ()


def test_J2_sound_lake_is_left_alone(lake, last):
    """Mending changes nothing where nothing is torn."""
    from aiotkit.lake.recovery import mend

    assert mend(lake) == ()
    assert lake.read("telemetry").num_rows == 6


def test_J2_torn_commit_below_sound_ones_needs_a_person(lake, last, tmp_path):
    """Damage in the middle of the log is reported, never cut away with what lies above it."""
    from aiotkit.lake.recovery import mend

    log = tmp_path / "lake" / "telemetry" / "_delta_log"
    (log / f"{2:020d}.json").write_bytes(b"")
    with pytest.raises(LakeError, match="a torn commit lies below sound ones"):
        mend(lake)
    assert (log / f"{3:020d}.json").exists()
