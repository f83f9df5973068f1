"""The registry says which subject a device watched at an instant, and never two."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import LakeError

pa = pytest.importorskip("pyarrow")
np = pytest.importorskip("numpy")
pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


@pytest.fixture
def assets(lake):
    from aiotkit.lake.assets import Assets

    return Assets(lake)


def put(assets, device, subject, start, end=None, **more):
    from aiotkit.lake.assets import Assignment

    assets.assign(Assignment(device, subject, start, end, **more), recorded_us=1)


def test_moved_device_keeps_history_apart(assets):
    """A device moved between machines gives each instant the machine it stood at then."""
    from aiotkit.lake.assets import Assignment

    put(assets, "dev-a", "press-1", 100, site="hall-3")
    put(assets, "dev-b", "press-2", 100)
    assets.move(Assignment("dev-b", "press-9", 250), recorded_us=2)
    assets.move(Assignment("dev-a", "press-2", 250, sensor="s7"), recorded_us=3)
    at = [99, 100, 249, 250, 10**15, 249, 250]
    devices = ["dev-a"] * 5 + ["dev-b"] * 2
    found = assets.subject_at(devices, at).to_pylist()
    assert found == [None, "press-1", "press-1", "press-2", "press-2", "press-2", "press-9"]
    rows = assets.assignments_at(devices, at)
    assert rows["site"].to_pylist()[:5] == [None, "hall-3", "hall-3", None, None]
    assert rows["sensor"].to_pylist()[3] == "s7"


def test_overlapping_assignment_is_refused(assets):
    """A device cannot watch two subjects at a time; two devices can watch one."""
    put(assets, "dev-a", "press-1", 100, 200)
    put(assets, "dev-a", "press-2", 300)
    put(assets, "dev-b", "press-1", 100)
    for start, end in ((150, 160), (50, 101), (199, 250), (100, 200), (0, None), (250, 301), (400, 500)):
        with pytest.raises(LakeError, match="device 'dev-a' cannot watch 'press-3'"):
            put(assets, "dev-a", "press-3", start, end)
    put(assets, "dev-a", "press-3", 200, 300)
    assert assets.subject_at(["dev-a"] * 3, [199, 200, 300]).to_pylist() == ["press-1", "press-3", "press-2"]


def test_retired_device_watches_nothing(assets):
    """After its end a device has no subject; retiring it twice is an error."""
    put(assets, "dev-a", "press-1", 100)
    assets.retire("dev-a", 150, recorded_us=5)
    assert assets.subject_at(["dev-a", "dev-a"], [149, 150]).to_pylist() == ["press-1", None]
    with pytest.raises(LakeError, match="expected an assignment that holds at 150; found none"):
        assets.retire("dev-a", 150, recorded_us=6)


def test_wrong_assignment_can_be_voided_and_replaced(assets):
    """Moving at the very beginning replaces an assignment; retiring there takes it back."""
    from aiotkit.lake.assets import Assignment

    put(assets, "dev-a", "press-1", 100)
    assets.move(Assignment("dev-a", "press-2", 100), recorded_us=2)
    assert assets.subject_at(["dev-a"], [120]).to_pylist() == ["press-2"]
    assets.retire("dev-a", 100, recorded_us=3)
    assert assets.assignments() == ()
    with pytest.raises(LakeError, match="ends before it begins"):
        put(assets, "dev-a", "press-1", 100, 100)


def test_move_into_a_later_assignment_is_refused(assets):
    """A move that would run into what is planned is refused, and what held goes on."""
    from aiotkit.lake.assets import Assignment

    put(assets, "dev-a", "press-1", 100, 300)
    put(assets, "dev-a", "press-2", 300)
    with pytest.raises(LakeError, match="cannot watch 'press-9'"):
        assets.move(Assignment("dev-a", "press-9", 200), recorded_us=2)
    assets.move(Assignment("dev-a", "press-9", 200, 300), recorded_us=2)
    assert assets.subject_at(["dev-a"] * 3, [199, 299, 300]).to_pylist() == ["press-1", "press-9", "press-2"]


def test_registry_as_of_a_version_is_what_was_known_then(lake, assets):
    """A pinned version answers as it did then, and cannot be written."""
    from aiotkit.lake.assets import Assets, Assignment

    put(assets, "dev-a", "press-1", 100)
    version = lake.versions()["assets"]
    assets.move(Assignment("dev-a", "press-2", 150), recorded_us=2)
    old = Assets(lake, version=version)
    assert old.subject_at(["dev-a"], [170]).to_pylist() == ["press-1"]
    with pytest.raises(LakeError, match="read only"):
        put(old, "dev-z", "press-1", 1)


def test_two_writers_cannot_both_change_the_registry(lake):
    """A change made on an outdated view is refused instead of producing an overlap."""
    from aiotkit.lake.assets import Assets, Assignment
    from aiotkit.lake.lake import Lake

    slow = Assets(lake)
    stale = slow._current

    def overtaken():
        view = stale()
        Assets(Lake.open(lake.uri)).assign(Assignment("dev-a", "press-1", 100), recorded_us=1)
        return view

    slow._current = overtaken  # another process is faster, once
    with pytest.raises(LakeError, match="watermark 'assets'; expected a value above 1"):
        put(slow, "dev-a", "press-2", 100)
    assert Assets(lake).subject_at(["dev-a"], [100]).to_pylist() == ["press-1"]


@given(
    cuts=st.lists(st.integers(0, 50), min_size=1, max_size=8, unique=True),
    asked=st.lists(st.tuples(st.sampled_from("abz"), st.integers(-2, 60)), max_size=30),
)
def test_as_of_agrees_with_looking_one_by_one(cuts, asked):
    """The vectorised join gives what a plain search through the assignments gives."""
    from aiotkit.lake.assets import Assignment, as_of

    cuts = sorted(cuts)
    spans = list(zip(cuts, [*cuts[1:], None], strict=True))
    found = [
        Assignment(d, f"{d}{i}", s, e)
        for d in "ab"
        for i, (s, e) in enumerate(spans)
        if d == "a" or i % 2 == 0
    ]

    def slowly(device, at):
        hits = [
            i
            for i, a in enumerate(found)
            if a.device == device and a.from_us <= at and (a.to_us is None or at < a.to_us)
        ]
        return hits[0] if hits else -1

    devices = pa.array([d for d, _ in asked], pa.string())
    at = np.array([t for _, t in asked], dtype=np.int64)
    assert as_of(found, devices, at).tolist() == [slowly(d, t) for d, t in asked]


def test_join_takes_a_million_rows_in_a_second(lake, assets):
    """The join is vectorised: a million decisions of ten devices cost no loop over rows."""
    import time

    for i in range(10):
        put(assets, f"dev-{i}", f"press-{i}", 0)
    devices = pa.array([f"dev-{i % 10}" for i in range(1_000_000)])
    at = pa.array(np.arange(1_000_000)).cast(pa.timestamp("us", tz="UTC"))
    start = time.process_time()
    found = assets.subject_at(devices, at)
    assert time.process_time() - start < 2
    assert found[49].as_py() == "press-9"
    assert found.null_count == 0


def test_instants_must_be_instants(assets):
    """Words or floats in place of instants are refused by name."""
    with pytest.raises(LakeError, match="instants; expected int"):
        assets.subject_at(["a"], ["2026-01-01"])
    put(assets, "a", "s", 0)
    with pytest.raises(LakeError, match="as-of join; expected 1 instants; found 2"):
        assets.subject_at(["a"], [1, 2])
