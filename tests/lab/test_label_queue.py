"""The label queue: which decisions are asked about first, and where an answer ends up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pytest.importorskip("pandas")
H = 3_600_000_000
DAY = 24 * H
T0 = 1_780_000_000_000_000
NOW = T0 + 30 * DAY


def decide(plant: Any, at: int, device: str = "d1", **said: Any) -> str:
    """A decision with a model: ``p`` of worn, ``novelty``, ``asks``; the rest as in ``Plant.decide``."""
    p, novelty, asks = said.pop("p", None), said.pop("novelty", None), said.pop("asks", False)
    plant.decide(device, at, said.pop("in_force", "run"), **said)
    row = plant.rows[-1]
    name = f"{row['device']}/{row['journal_id']}/{row['seq']}"
    record = json.loads(row["payload"])
    out = record["out"]
    if p is not None:
        out["p"] = {"ok": 1 - p, "worn": p, "broken": 0.0}
    if novelty is not None:
        out["novelty"] = novelty
    if asks:
        out["question"] = {"id": name, "kind": "ask", "proposed": None, "until_us": at + H, "reason": "?"}
    row["payload"] = json.dumps(record)
    return name


def desk(tmp_path: Path, who: str = "ann", source: str = "crew", now_us: int = NOW) -> Any:
    from aiotkit.lab.label_queue import Desk

    return Desk(who, source, tmp_path / "answers.jsonl", lambda: now_us)


def queue(plant: Any, tmp_path: Path, **changes: Any) -> Any:
    from aiotkit.lab.label_queue import LabelQueue

    most = changes.pop("most", 40)
    return LabelQueue(plant.lake, plant.decision, desk(tmp_path, **changes), most=most)


def label_of(plant: Any, name: str) -> tuple[Any, ...]:
    from aiotkit.lab.outcomes import resolve

    labels = resolve(plant.lake, plant.decision, NOW)
    device, _, seq = name.split("/")
    row = labels[(labels["device"] == device) & (labels["seq"] == int(seq))].iloc[0]
    return row["status"], row["state"]


@pytest.fixture
def pumps(plant: Any) -> Any:
    """Nine devices on nine pumps."""
    for i in range(1, 10):
        plant.watch(f"d{i}", f"pump-{i}", T0 - 90 * DAY)
    return plant


def test_an_answer_is_a_report_in_the_lake_and_resolves_the_label(pumps: Any, tmp_path: Path) -> None:
    """Source, time, kind and name are in the lake's table, and the decision's label is what was said."""
    name = decide(pumps, T0, asks=True)
    pumps.store()
    waiting = queue(pumps, tmp_path)
    assert label_of(pumps, name) == ("mature", "ok")
    waiting.answer(waiting.next(), "worn", note="felt rough")
    assert label_of(pumps, name) == ("mature", "worn")
    row = pumps.lake.read("outcomes").to_pylist()[0]
    assert (row["subject"], row["state"], row["source"], row["kind"]) == ("pump-1", "worn", "crew", "report")
    assert round(row["at"].timestamp() * 1e6) == T0
    assert round(row["reported_at"].timestamp() * 1e6) == NOW
    assert row["reliability"] == 0.9
    assert row["note"] == "felt rough"
    assert row["provenance"] == f"label queue: ann of {name}"


def test_cannot_tell_is_never_turned_into_a_state(pumps: Any, tmp_path: Path) -> None:
    """It is kept in the log, the lake stays as it was, and the same person is not asked again."""
    decide(pumps, T0, asks=True)
    pumps.store()
    waiting = queue(pumps, tmp_path)
    waiting.answer(waiting.next(), None)
    assert pumps.lake.read("outcomes").num_rows == 0
    assert len(waiting) == len(queue(pumps, tmp_path)) == 0
    assert len(queue(pumps, tmp_path, who="bob")) == 1
    shown = waiting.progress().set_index("reason").loc["asked"]
    assert (shown["waiting"], shown["answered"], shown["cannot_tell"]) == (0, 0, 1)


def test_the_order_is_by_reason_then_by_what_knowing_is_worth(pumps: Any, tmp_path: Path) -> None:
    """Asked, novel, near, acted; within one by money; and every fourth was drawn at random."""
    acted = decide(pumps, T0, "d1", in_force="slow", p=0.9)
    near = decide(pumps, T0, "d2", p=0.6)
    little = decide(pumps, T0, "d3", p=0.1, asks=True)
    much = decide(pumps, T0, "d4", p=0.5, asks=True)
    novel = decide(pumps, T0, "d5", p=0.0, novelty=1.1)
    drawn = decide(pumps, T0, "d6", p=0.0, drawn=True)
    decide(pumps, T0, "d7", p=0.05, novelty=1.0)
    pumps.store()
    waiting = queue(pumps, tmp_path)
    assert [i.name for i in waiting.items] == [much, little, novel, drawn, near, acted]
    assert [i.reason for i in waiting.items] == ["asked", "asked", "novel", "drawn", "near", "acted"]
    assert waiting.table()["worth"].tolist() == pytest.approx([20.0, 4.0, 0.0, 0.0, 24.0, 6.0])
    assert queue(pumps, tmp_path, most=2).table()["subject"].tolist() == ["pump-4", "pump-3"]


def test_the_worth_of_knowing_is_the_expected_value_of_perfect_information(guard: Any) -> None:
    """Even odds of ok and worn: running costs 50 on average, knowing it 30; sure of it: nothing."""
    from aiotkit.lab.worth import value_of_knowing

    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [np.nan] * 3])
    assert value_of_knowing(p, guard) == pytest.approx([20.0, 0.0, np.nan], nan_ok=True)


def test_what_was_reported_within_the_horizon_does_not_wait(pumps: Any, tmp_path: Path) -> None:
    """A report speaks for the day before it; a random check waits for somebody who looked at the machine."""
    from aiotkit.lab.outcomes import import_outcomes

    decide(pumps, T0, "d1", asks=True)
    late = decide(pumps, T0 + 3 * DAY, "d1", asks=True)
    drawn = decide(pumps, T0, "d2", drawn=True)
    pumps.store()
    said = [
        {"subject": s, "state": "worn", "at": at(T0 + 20 * H), "source": "crew"} for s in ("pump-1", "pump-2")
    ]
    import_outcomes(pumps.lake, _frame(said), pumps.decision, imported_us=NOW)
    assert {i.name for i in queue(pumps, tmp_path).items} == {late, drawn}
    looked = [{"subject": "pump-2", "state": "ok", "at": at(T0 + H), "source": "crew", "kind": "inspection"}]
    import_outcomes(pumps.lake, _frame(looked), pumps.decision, imported_us=NOW)
    assert {i.name for i in queue(pumps, tmp_path).items} == {late}


def test_a_subject_comes_up_once_a_horizon(pumps: Any, tmp_path: Path) -> None:
    """The best of several neighbours is shown; those drawn at random are all shown."""
    decide(pumps, T0, p=0.1, asks=True)
    best = decide(pumps, T0 + H, p=0.5, asks=True)
    drawn = [decide(pumps, T0 + k * H, drawn=True) for k in (2, 3)]
    after = decide(pumps, T0 + H + DAY + 1, p=0.1, asks=True)
    pumps.store()
    assert {i.name for i in queue(pumps, tmp_path).items} == {best, *drawn, after}


@pytest.mark.parametrize(("looked", "status"), [(True, "verified"), (False, "mature")])
def test_a_random_check_is_verified_only_by_who_looked(
    pumps: Any, tmp_path: Path, looked: bool, status: str
) -> None:
    """An opinion from records is a report, not an inspection."""
    name = decide(pumps, T0, drawn=True)
    pumps.store()
    waiting = queue(pumps, tmp_path)
    waiting.answer(waiting.next(), "worn", looked=looked)
    assert label_of(pumps, name) == (status, "worn")


def test_what_a_desk_may_not_say_is_refused_in_words(pumps: Any, tmp_path: Path) -> None:
    """A state its source does not report, no name, an item that is not open, an unknown source."""
    decide(pumps, T0, asks=True)
    decide(pumps, T0, "d2", asks=True)
    pumps.store()
    item = queue(pumps, tmp_path).next()
    with pytest.raises(DataError, match="'app' cannot report 'worn'"):
        queue(pumps, tmp_path, source="app").answer(item, "worn")
    with pytest.raises(DataError, match="did you mean 'worn'"):
        queue(pumps, tmp_path).answer(item, "wurn")
    with pytest.raises(DataError, match="who says so"):
        queue(pumps, tmp_path, who=" ").answer(item, "worn")
    with pytest.raises(DataError, match="not open in this queue"):
        queue(pumps, tmp_path).answer(replace(item, seq=99), "worn")
    with pytest.raises(DataError, match="did you mean 'crew'"):
        queue(pumps, tmp_path, source="crw")
    assert pumps.lake.read("outcomes").num_rows == 0


def test_the_log_is_read_back_and_damage_is_named(pumps: Any, tmp_path: Path) -> None:
    """Answers survive a restart; a line that is none stops the queue, and nothing is overwritten."""
    from aiotkit.lab.label_log import read_log

    for i in (1, 2):
        decide(pumps, T0, f"d{i}", asks=True)
    pumps.store()
    first = queue(pumps, tmp_path)
    said = first.answer(first.next(), "broken")
    log = tmp_path / "answers.jsonl"
    assert read_log(log) == [said]
    assert len(queue(pumps, tmp_path)) == 1
    log.write_text(log.read_text() + "{torn")
    with pytest.raises(DataError, match=r"answers\.jsonl, line 2"):
        queue(pumps, tmp_path)


def test_a_second_person_is_shown_a_share_and_agreement_is_beyond_chance(pumps: Any, tmp_path: Path) -> None:
    """Unseen by whom it is: only reasons differ; κ is 1 where all agree and 0 where it is chance."""
    from aiotkit.lab.label_log import agreement

    for k in range(60):
        decide(pumps, T0 - k * 2 * DAY, f"d{k % 9 + 1}", asks=True, p=0.4)
    pumps.store()
    mine = queue(pumps, tmp_path, most=60)
    answers = [mine.answer(i, "worn" if k % 2 else "ok") for k, i in enumerate(list(mine.items)[:30])]
    again = [i for i in queue(pumps, tmp_path, who="bob", most=60).items if i.reason == "second look"]
    assert 0 < len(again) < 15
    assert not [i for i in queue(pumps, tmp_path, most=60).items if i.reason == "second look"]
    table = mine.agreement().set_index("between")
    assert table.loc["people and the model's likeliest state", "same"] == 0.5
    assert table.loc["people and the model's likeliest state", "kappa"] == 0
    others = [replace(a, who="bob") for a in answers]
    assert agreement([*answers, *others])["kappa"].tolist() == [0, 1]


def test_nothing_later_than_the_present_is_shown(pumps: Any, tmp_path: Path) -> None:
    """The desk's clock decides what has happened."""
    decide(pumps, T0, asks=True)
    decide(pumps, T0 + 2 * DAY, asks=True)
    pumps.store()
    assert len(queue(pumps, tmp_path, now_us=T0)) == 1
    assert len(queue(pumps, tmp_path)) == 2


def test_the_buttons_do_what_the_queue_does(pumps: Any, tmp_path: Path) -> None:
    """A press enters the label and shows the next; a refusal is said on the page; at the end they rest."""
    pytest.importorskip("ipywidgets")
    from aiotkit.lab.label_panel import LabelPanel

    name = decide(pumps, T0, "d1", asks=True, p=0.5)
    decide(pumps, T0, "d2", asks=True, p=0.1)
    pumps.store()
    nobody = LabelPanel(queue(pumps, tmp_path, who=""))
    nobody.press("worn")
    assert "who says so" in nobody.said
    panel = LabelPanel(queue(pumps, tmp_path))
    assert [b.description for b in panel.buttons] == ["ok", "worn", "broken", "cannot tell", "later"]
    assert "pump-1" in panel.shown
    assert "make up your own mind" in panel.shown
    panel.buttons[-1].click()
    assert "pump-2" in panel.shown
    panel.buttons[-1].click()
    panel.buttons[1].click()
    assert label_of(pumps, name) == ("mature", "worn")
    assert "pump-2" in panel.shown
    panel.buttons[3].click()
    assert "Nothing is waiting" in panel.shown
    assert all(b.disabled for b in panel.buttons)


def at(us: int) -> str:
    import pandas as pd

    return str(pd.Timestamp(us, unit="us", tz="UTC").isoformat())


def _frame(rows: list[dict[str, Any]]) -> Any:
    import pandas as pd

    return pd.DataFrame(rows)
