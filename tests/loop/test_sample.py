"""The sample plant: small, made once, and a lake like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def plant(tmp_path_factory: Any) -> Any:
    """Three machines, two days by the rule."""
    from aiotkit.loop.sample import Plan, sample_plant

    told: list[tuple[str, float]] = []
    folder = tmp_path_factory.mktemp("sample") / "plant"
    found = sample_plant(folder, Plan(machines=3, days=2), lambda *said: told.append(said))
    assert [share for _, share in told] == sorted(share for _, share in told)
    assert told[-1][1] == 1
    return found


def test_every_decision_of_the_sample_replays_where_its_window_left(plant: Any) -> None:
    """Records, windows and bundles are those of devices: what can be replayed is identical."""
    from aiotkit.bundle.engine import Engine
    from aiotkit.bundle.replay import Recorded, replay_all
    from aiotkit.lab.trace import open_bundles, read_trace
    from aiotkit.lake.lake import Lake

    lake = Lake.open(plant.lake)
    rows = lake.read("decisions").to_pylist()
    assert len(rows) == 3 * 2 * 48
    assert len({(r["device"], r["seq"]) for r in rows}) == len(rows)
    kept = [r for r in rows if r["upload_hit"]]
    assert 0 < len(kept) < len(rows) / 2
    engines = {digest: Engine(files) for digest, files in open_bundles([plant.bundles]).items()}
    traces = [read_trace(lake, r["device"], r["journal_id"], r["seq"]) for r in kept[:8]]
    assert {t.subject for t in traces} <= {"pump-01", "pump-02", "pump-03"}
    found = replay_all([Recorded(t.name, t.payload, t.window) for t in traces], engines.get)
    assert (found.identical, found.checked) == (8, 8)


def test_the_sample_is_made_once(plant: Any) -> None:
    """The same plan takes what is there; another one, or a folder of something else, is refused."""
    from aiotkit.loop.sample import Plan, sample_plant

    assert sample_plant(plant.folder, Plan(machines=3, days=2)) == plant
    with pytest.raises(DataError, match="something else"):
        sample_plant(plant.folder, Plan(machines=3, days=3))


def test_half_a_sample_is_not_taken_for_one(tmp_path: Path) -> None:
    """A run that was killed leaves no mark, and the next one says what to do."""
    from aiotkit.loop.sample import sample_plant

    (tmp_path / "lake").mkdir()
    with pytest.raises(DataError, match="Name another folder, or remove this one"):
        sample_plant(tmp_path)


def test_labels_of_the_sample_resolve(plant: Any) -> None:
    """What people reported is in the lake, and every decision has a status."""
    from aiotkit.lab.outcomes import resolve
    from aiotkit.loop.sample import Plan, open_or_sample

    place = open_or_sample("", "", str(plant.folder), plan=Plan(machines=3, days=2))
    labels = resolve(place.lake, place.decision, place.now_us())
    assert len(labels) == 288
    assert place.now_us() == plant.now_us
    assert set(labels["status"]) <= {"mature", "pending", "censored", "verified"}


def test_a_lake_without_its_decision_file_is_refused(plant: Any) -> None:
    """And the other way round; with both, the present is this computer's."""
    from aiotkit.loop.sample import open_or_sample

    for lake, decision in ((plant.lake, ""), ("", plant.decision)):
        with pytest.raises(DataError, match="both, or neither"):
            open_or_sample(lake, decision, "nowhere")
    own = open_or_sample(plant.lake, plant.decision, "nowhere")
    assert not own.is_sample
    assert own.newest_us <= plant.now_us < own.now_us()
