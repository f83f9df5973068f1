"""``aiotkit journal``: what a plant engineer sees of a journal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("typer")
from worlds.journals import COLLECTOR, TRUST, open_journal, point, signed

from aiotkit.cli.main import main
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import RealDisk

pytestmark = pytest.mark.desk
T0_US = 1_793_595_600_000_000  # 2026-11-02T05:00:00Z


@pytest.fixture
def state(tmp_path) -> Path:
    """A state folder: five decisions a minute apart, their windows, a security record; a trust file."""
    folder = tmp_path / "state"
    with open_journal(RealDisk(folder)) as journal:
        for minute in range(5):
            journal.append(RecordType.WINDOW, b'{"vibration":2}\n' + bytes(8))
            out = {"proposed": "slow", "final": None, "verdict": "HOLD", "mode": "act", "in_force": "run"}
            out["final_reason"] = "the gate 'warm' holds"
            at_us = T0_US + minute * 60_000_000
            said = {"format": 1, "in": {"now_us": at_us}, "out": out}
            journal.append(RecordType.DECISION, canonical_bytes(said))
            journal.commit()
        journal.append(RecordType.SECURITY, canonical_bytes({"format": 1, "why": "wrong key"}))
        journal.commit()
    (tmp_path / "trust.json").write_bytes(TRUST.canonical())
    return folder


def run(capsys, *argv: object) -> tuple[int, str, str]:
    code = main([str(a) for a in argv])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_verify_says_ok(capsys, state):
    """A sound journal: exit code 0, what is in it, and that no checkpoint was given."""
    code, out, _ = run(capsys, "journal", "verify", state)
    assert code == 0
    assert "records 1 to 11 in 1 segments: 5 window, 5 decision, 1 security" in out
    assert "no signed checkpoint" in out
    assert run(capsys, "journal", "verify", state / "journal")[0] == 0


def test_verify_names_the_first_bad_record(capsys, state):
    """A changed byte: exit code 1, and the record it is in, in words and as JSON."""
    path = next((state / "journal").glob("*.seg"))
    data = bytearray(path.read_bytes())
    data[data.index(b"slow", len(data) // 2)] ^= 1
    path.write_bytes(data)
    code, out, _ = run(capsys, "journal", "verify", state)
    assert code == 1
    assert "NOT OK: the first bad record is" in out
    code, out, _ = run(capsys, "journal", "verify", state, "--json")
    told = json.loads(out)
    assert (code, told["ok"]) == (1, False)
    assert told["first_bad"] == told["problems"][0]["seq"]
    assert "payload differs" in told["problems"][0]["why"]
    code, out, _ = run(capsys, "journal", "show", state)
    assert f"!! record {told['first_bad']}" in out


def test_verify_against_the_collectors_checkpoint(capsys, state, tmp_path):
    """With the collector's watermark a cut end is found; without trust a checkpoint is refused."""
    with open_journal(RealDisk(state)) as journal:
        (tmp_path / "watermark.json").write_bytes(signed(point(journal, 11), COLLECTOR))
    options = ["--checkpoint", tmp_path / "watermark.json", "--trust", tmp_path / "trust.json"]
    code, out, _ = run(capsys, "journal", "verify", state, *options)
    assert (code, "signed checkpoint: record 11" in out) == (0, True)
    path = next((state / "journal").glob("*.seg"))
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b"AJG1")])
    (state / "journal" / "base.json").unlink()
    code, out, _ = run(capsys, "journal", "verify", state, *options, "--json")
    assert code == 1
    assert any("ends at record 10" in problem["why"] for problem in json.loads(out)["problems"])
    code, _, err = run(capsys, "journal", "verify", state, *options[:2])
    assert code == 3
    assert "expected --trust with it" in err


def test_show_speaks_plainly(capsys, state):
    """Each record is a line: number, time, type, and what was decided and why."""
    code, out, _ = run(capsys, "journal", "show", state)
    lines = out.splitlines()
    assert (code, len(lines)) == (0, 11)
    assert "WINDOW       vibration x2" in lines[0]
    assert "2026-11-02 05:00:00.000000Z" in lines[1]
    assert "slow -> no new command [HOLD, act] in force: run; the gate 'warm' holds" in lines[1]
    assert "wrong key" in lines[10]


def test_show_filters(capsys, state):
    """By type, by number, by time and by count, alone and together."""

    def seqs(*options: object) -> list[int]:
        code, out, _ = run(capsys, "journal", "show", state, "--json", *options)
        assert code == 0
        return [record["seq"] for record in json.loads(out)["records"]]

    assert seqs("--type", "decision") == [2, 4, 6, 8, 10]
    assert seqs("--type", "Security", "--type", "window", "--last", 2) == [9, 11]
    assert seqs("--since", 9) == [9, 10, 11]
    assert seqs("--since", "2026-11-02T06:03:00+01:00", "--type", "decision") == [8, 10]
    assert seqs("--last", 3) == [9, 10, 11]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--type", "decison"], "did you mean 'decision'?"),
        (["--since", "yesterday"], "expected a record's number or a time"),
        (["--since", "2026-11-02T06:00:00"], "expected a time with its zone"),
    ],
)
def test_show_explains_wrong_options(capsys, state, options, words):
    """A wrong filter is an error that says what would be right."""
    code, _, err = run(capsys, "journal", "show", state, *options)
    assert code != 0
    assert words in err


def test_no_journal_is_said(capsys, tmp_path):
    """A folder without a journal is an error with advice, and stays as it was."""
    code, _, err = run(capsys, "journal", "verify", tmp_path)
    assert code == 3
    assert "no journal at" in err
    assert list(tmp_path.iterdir()) == []
