"""Outcomes as people have them: what a file says is found, and what it does not say is asked at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DataError, OutcomeError

pytestmark = pytest.mark.desk
pd = pytest.importorskip("pandas")
pytest.importorskip("deltalake")

WIDE = {"kind": "regular", "rate_hz": 1 / 60}


@pytest.fixture
def decision() -> Any:
    """Three states: ok, leak, blockage; ok is the silent one."""
    from aiotkit.core.decision import Decision
    from aiotkit.lab.decision_file import read_decision_text
    from aiotkit.lab.template import Draft, SignalDraft, write_draft

    signals = {"oil": SignalDraft("Cel", 1 / 60, 0, 100)}
    draft = Draft("pump", states=("ok", "leak", "blockage"), signals=signals, length_s=600.0, every_s=600.0)
    found: Decision = read_decision_text(write_draft(draft), "pump")
    return found


def read(frame: Any, decision: Any, known: Any = ("P1", "P2"), **told: Any) -> Any:
    """Outcomes out of a frame or file."""
    from aiotkit.lab.instants import Clock
    from aiotkit.lab.outcome_reports import read_outcomes
    from aiotkit.lab.outcome_told import Told

    clock = Clock(told.pop("zone", "UTC"))
    return read_outcomes(frame, decision, Told(clock=clock, **told), known=dict.fromkeys(known))


def labelled(values: list[Any]) -> Any:
    """A row a day of P1, with what it says."""
    at = pd.date_range("2026-03-01", periods=len(values)).astype(str)
    return pd.DataFrame({"Date": at, "machine": "P1", "Machine failure": values})


def test_failures_with_a_label_are_those_rows_that_say_so(decision: Any) -> None:
    """Rows of the silent state, and of values that were not mapped, are no events."""
    frame, told = labelled([0, 1, 0, 2, 0]), {"form": "failures", "label": "Machine failure"}
    found = read(frame, decision, **told, states={"1": "leak"})
    assert found.accepted["state"].tolist() == ["leak"]
    assert "4 of 5 rows are no failures: it says '0', '2'" in found.notes
    assert pd.Timestamp(found.accepted["at_us"][0], unit="us").day == 2
    found = read(frame, decision, **told, states={"0": "ok", "1": "leak", "2": "blockage"})
    assert found.accepted["state"].tolist() == ["leak", "blockage"]
    assert found.rejected.empty
    found = read(labelled(["leak", "ok", "lek"]), decision, **told)  # without a map a typing error is one
    assert found.accepted["state"].tolist() == ["leak"]
    assert found.rejected["reason"].str.contains("unknown state 'lek'").tolist() == [True]
    with pytest.raises(OutcomeError, match=r"no column holds them\. Give --label COLUMN too"):
        read(frame, decision, form="failures", states={"1": "leak"})


def test_windows_of_several_kinds_find_their_column(decision: Any) -> None:
    """A column that holds names of states is taken; where there is none the error says --label COLUMN."""
    frame = pd.DataFrame(
        {"machine": ["P1", "P1"], "start": ["2026-03-01T10:00Z", "2026-03-02T10:00Z"],
         "end": ["2026-03-01T11:00Z", "2026-03-02T11:00Z"], "kind": ["leak", "blockage"]}
    )  # fmt: skip
    assert set(read(frame, decision).accepted["state"]) == {"leak", "blockage"}
    with pytest.raises(
        OutcomeError, match=r"what was so in each window\?.*columns machine, kind.*--label COLUMN"
    ):
        read(frame.replace({"kind": {"leak": "L", "blockage": "B"}}), decision)
    found = read(frame.replace({"kind": {"leak": "L", "blockage": "B"}}), decision, label="kind",
                 states={"L": "leak", "B": "blockage"})  # fmt: skip
    assert set(found.accepted["state"]) == {"leak", "blockage"}


def test_what_a_list_of_failures_does_not_say_is_found(decision: Any, tmp_path: Path) -> None:
    """Encoding, the times and how they are written, and the column of known machines are found and said."""
    path = tmp_path / "stoerungen.csv"
    path.write_bytes("Nr;Maschine;Datum\n1;Säge-4;13.10.2025 08:00\n2;P1;14.10.2025 09:30\n".encode("cp1252"))
    found = read(path, decision, known=("Säge-4", "P1"), form="failures", state="leak", zone="Europe/Berlin")
    assert found.accepted["subject"].tolist() == ["Säge-4", "P1"]
    assert str(pd.Timestamp(found.accepted["at_us"][0], unit="us")) == "2025-10-13 06:00:00"
    for note in (
        "read as cp1252",
        "written %d.%m.%Y %H:%M",
        "column 'Maschine', which holds subjects",
        "'Datum'",
    ):
        assert any(note in n for n in found.notes), note


def test_several_unknowns_are_asked_at_once(decision: Any) -> None:
    """Order of day and month, zone, machine and state: one error names them all, with their options."""
    frame = pd.DataFrame(
        {"WO": [1, 2], "Equip": ["X", "Y"], "Reported": ["03/04/2025 08:00", "05/04/2025 08:00"]}
    )
    with pytest.raises(OutcomeError, match=r"4 things are not known") as raised:
        read(frame, decision, form="failures", zone=None)
    for words in (
        "--time-format",
        "--zone",
        "--subject-column",
        "--state STATE",
        "%d/%m/%Y %H:%M and %m/%d/%Y",
    ):
        assert words in str(raised.value)
    with pytest.raises(DataError, match="times have no zone"):  # one alone is asked as ever
        read(
            pd.DataFrame({"machine": ["P1"], "when": ["2026-03-01 08:00"]}), decision, zone=None, state="leak"
        )


def test_the_only_subject_needs_no_name(decision: Any) -> None:
    """Outcomes of a lake of one machine are of that one, unless a column seems to name others."""
    frame = pd.DataFrame({"when": ["2026-03-01 08:00", "2026-03-02 08:00"]})
    assert read(frame, decision, known=("P1",), state="leak").accepted["subject"].tolist() == ["P1", "P1"]
    with pytest.raises(OutcomeError, match="which machine it is"):
        read(frame.assign(unit=["P7", "P8"]), decision, known=("P1",), state="leak")
    with pytest.raises(OutcomeError, match="which machine it is"):
        read(frame, decision, state="leak")


def test_an_hour_that_occurs_twice_names_the_way_out(decision: Any) -> None:
    """The note names --ambiguous infer-order, and that settles labels of each machine by its own order."""
    wall = ["2025-10-26 01:30", "2025-10-26 02:30", "2025-10-26 02:10", "2025-10-26 03:10"]
    frame = pd.DataFrame({"machine": ["P1"] * 4 + ["P2"] * 4, "time": wall * 2, "label": ["leak"] * 8})
    found = read(frame, decision, zone="Europe/Berlin", label="label")
    assert any(
        "4 rows in an hour that occurs twice" in n and "--ambiguous infer-order" in n for n in found.notes
    )
    assert len(found.rejected) == 4

    from aiotkit.lab.outcome_reports import read_outcomes
    from aiotkit.lab.quick import Clock, Told

    told = Told(label="label", clock=Clock("Europe/Berlin", "infer-order"))
    assert read_outcomes(frame, decision, told, known={"P1": None, "P2": None}).rejected.empty


def test_a_notebook_finds_how_to_read_in_one_module() -> None:
    """What ``own_data`` takes is beside it."""
    from aiotkit.lab import instants, layout, quick

    assert (quick.Options, quick.Clock) == (layout.Options, instants.Clock)
