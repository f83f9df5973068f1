"""The whole circle with real processes: outage, kill, swap, outcomes, rounds, refusals, replay, money."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("deltalake")
pd = pytest.importorskip("pandas")
pytestmark = pytest.mark.desk

from aiotkit.core.errors import DataError, StorageError  # noqa: E402
from aiotkit.lake.assets import Assets  # noqa: E402
from aiotkit.lake.lake import Lake  # noqa: E402
from aiotkit.loop.circle import words  # noqa: E402
from aiotkit.loop.demo import Options, device_name  # noqa: E402
from aiotkit.loop.setting import prepare  # noqa: E402

#: small, with a seed by which something breaks early: nothing can be learned from health alone
FLEET, ROUNDS, SEED = 3, (4, 2), 2
DAYS = sum(ROUNDS)


def aiotkit(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "aiotkit.cli.main", *argv]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("circle") / "run"
    size = ["--fleet", str(FLEET), "--days", str(ROUNDS[0]), "--rounds", "1", "--round-days", str(ROUNDS[1])]
    done = aiotkit("demo", "--quick", *size, "--seed", str(SEED), "--workdir", str(folder), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((folder / "summary.json").read_text())
    return folder


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def test_nothing_is_lost_and_nothing_comes_twice(summary: dict[str, Any]) -> None:
    """Through outage, kill and swap: decided = delivered + gaps."""
    books = summary["outage"]
    assert books["lost"] == books["duplicates"] == 0
    assert books["decided"] == books["delivered"] + books["gaps"]
    packets = FLEET * DAYS * 48
    missed = summary["field"]["packets_missed"]
    assert missed == 2  # the killed agent is away for three steps, and died with the first in its hands
    assert packets - missed - 1 <= books["decided"]


def test_every_decision_replays_bit_for_bit(summary: dict[str, Any]) -> None:
    """A fresh process finds the same bits in journal, bundle and blobs."""
    assert summary["replayed"]["checked"] == summary["outage"]["delivered"]
    assert summary["replayed"]["identical"] == summary["replayed"]["checked"]


def test_every_policy_has_its_price_and_interval(summary: dict[str, Any]) -> None:
    """The fleet and six policies, each with an interval that holds its estimate."""
    money = summary["policy_money"]
    six = ["rule", "tuned_threshold", "hindsight_threshold", "always", "never", "oracle"]
    assert list(money) == ["field", *six]
    for row in money.values():
        assert row["low"] <= row["money"] <= row["high"]
    assert money["hindsight_threshold"]["money"] <= money["tuned_threshold"]["money"]


def test_every_decision_has_a_label_status(summary: dict[str, Any]) -> None:
    """Mature, pending, censored, verified and unlabelled add up to all decisions."""
    assert sum(summary["outcomes"].values()) == summary["outage"]["delivered"]
    assert summary["outcomes"]["pending"] > 0


def test_every_round_says_what_ran_and_what_it_cost(summary: dict[str, Any]) -> None:
    """Each round has its bundle, its policy and the same policies' money; the whole is their mean."""
    rounds = summary["rounds"]
    assert [(row["round"], row["days"]) for row in rounds] == list(enumerate(ROUNDS))
    assert (rounds[0]["bundle"], rounds[0]["policy"]) == ("pump-bearing-2.aiot", "written rule")
    assert summary["bundle"] == rounds[-1]["bundle"]
    for name in ("field", "rule", "tuned_threshold", "hindsight_threshold", "oracle"):
        whole = sum(row["days"] * row["money"][name] for row in rounds) / DAYS
        assert whole == pytest.approx(summary["policy_money"][name]["money"])


def test_learning_too_early_is_refused(summary: dict[str, Any]) -> None:
    """After a day there is no label yet, and the retraining says so."""
    first = summary["candidates"][0]
    assert (first["early"], first["released"]) == (True, None)
    assert "0 labelled rows" in first["refused"]
    assert (summary["mishaps"][0]["became"], summary["mishaps"][0]["device"]) == ("refused", None)


def test_a_candidate_is_released_or_refused_with_its_reason(run: Path, summary: dict[str, Any]) -> None:
    """What was learned at the round's end has a page, and either runs in the next round or does not."""
    (learned,) = [c for c in summary["candidates"] if not c["early"]]
    assert learned["due"] == ["there is no candidate yet"]
    assert (run / learned["page"]).is_file()
    assert summary["rounds"][0]["refused"] == learned["refused"]
    assert summary["rounds"][1]["bundle"] == (learned["released"] or summary["rounds"][0]["bundle"])
    assert bool(learned["refused"]) != bool(learned["released"])


def test_bad_bundles_are_refused_by_the_device(summary: dict[str, Any]) -> None:
    """Altered, signed by one key only, older than what ran: the device answers why."""
    answers = {m["what"]: m["answer"] for m in summary["mishaps"] if m["device"] and m["became"] == "refused"}
    assert answers.keys() == {"one byte flipped", "signed by one of two keys", "an older release"}
    assert "expected sha256" in answers["one byte flipped"]
    assert "expected valid signatures by 2 of 2" in answers["signed by one of two keys"]
    assert "the floor of this device" in answers["an older release"]


def test_an_unhealthy_bundle_is_taken_back_by_its_device(run: Path, summary: dict[str, Any]) -> None:
    """It decided on one device only, until that device had seen enough; the approval is withdrawn."""
    mishap = next(m for m in summary["mishaps"] if m["what"] == "novelty limit far too tight")
    assert mishap["became"] == "rolled back by the device"
    assert "decisions were novel" in mishap["answer"]
    granted, withdrawn = [a for a in summary["approvals"] if mishap["device"] in (a["pilot"] or a["note"])]
    assert (granted["verdict"], withdrawn["verdict"]) == ("approved", "rejected")
    rows = Lake.open(run / "lake").read("decisions", columns=["device", "bundle"]).to_pandas()
    mine = rows[rows["bundle"] == granted["bundle"]]
    assert set(mine["device"]) == {mishap["device"]}
    assert 12 <= len(mine) < 48


def test_every_verdict_is_signed(summary: dict[str, Any]) -> None:
    """Approvals and rejections carry the approval key's signature, and name their candidate."""
    assert all(a["authenticated"] and a["by"] == "lead" for a in summary["approvals"])
    assert {a["bundle"] for a in summary["approvals"]} >= {
        c["bundle"] for c in summary["candidates"] if c["bundle"]
    }


def test_the_candidates_figures_are_told(summary: dict[str, Any]) -> None:
    """Parity without flips, every quantized variant, and times on the device beside the bare graph's."""
    assert summary["parity"]["label_flips"] == 0
    assert summary["parity"]["max_abs"] <= 1e-4
    assert {row["variant"] for row in summary["quantization"]} > {"float32"}
    found = summary["latency_us"]
    assert 0 < found["bare_p50"] < found["p50"] <= found["p99"]
    assert summary["gain_over_oracle_gap"] is None  # the load does not change in so short a run
    assert "mostly luck" in summary["words"]


def test_the_registry_knows_the_swap(run: Path) -> None:
    """One device watched two machines, one after the other."""
    mine = [a for a in Assets(Lake.open(run / "lake")).assignments() if a.device == device_name(FLEET)]
    assert [a.subject for a in mine] == [f"pump-{FLEET:02d}", "pump-01"]
    first_end = mine[0].to_us
    assert first_end is not None
    assert first_end <= mine[1].from_us


def test_the_report_needs_nothing_from_outside(run: Path) -> None:
    """Figures inside, no request to anywhere; links lead to the candidates' pages beside it."""
    page = (run / "report.html").read_text()
    assert page.count("<figure>") >= 6
    links = re.findall(r'(?:src|href)="(?!data:|#)([^"]+)"', page)
    assert links
    assert set(links) <= {path.relative_to(run).as_posix() for path in (run / "candidates").iterdir()}


def test_a_policy_has_one_name_wherever_it_is_told(run: Path, summary: dict[str, Any]) -> None:
    """Page and table say 'the fleet' and 'tuned threshold', in words, whatever the keys are."""
    page, said = (run / "report.html").read_text(), words(summary, run)
    for name in ("the fleet", "written rule", "tuned threshold", "hindsight threshold", "oracle"):
        assert f"\n{name}: " in said
        assert f">{name}</th>" in page
        assert f"<td>{name}: " in page
    assert "The thick line (the fleet)" in page
    assert "_threshold" not in page + said


def test_money_is_told_at_other_prices_of_a_breakdown(run: Path) -> None:
    """Half and twice the breakdowns, everything else as it was, per machine and day; the page has it."""
    from aiotkit.loop.page import at_other_prices

    spent = pd.DataFrame({"production": [90.0, 0.0], "breakdown": [30.0, 600.0]}, index=["rule", "never"])
    found = at_other_prices(spent, 3)
    assert found.loc["rule"].tolist() == [35.0, 40.0, 50.0]
    assert found.loc["never"].tolist() == [100.0, 200.0, 400.0]
    assert "a breakdown at half the price" in (run / "report.html").read_text()


def test_what_the_devices_keep_verifies(run: Path) -> None:
    """Every device's own journal is sound, the killed one's too."""
    for number in range(1, FLEET + 2):
        state = run / "devices" / device_name(number)
        done = aiotkit("journal", "verify", str(state), "--json")
        assert done.returncode == 0, done.stdout + done.stderr


def test_a_page_can_be_made_from_the_lake_alone(run: Path, tmp_path: Path) -> None:
    """``aiotkit report`` tells a lake's story without the demo."""
    target = tmp_path / "page.html"
    done = aiotkit("report", "--lake", str(run / "lake"), "--out", str(target))
    assert done.returncode == 0, done.stderr
    assert "pump-01" in target.read_text()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """The demo replaces its own runs and nothing else."""
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StorageError, match="found other files"):
        prepare(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_a_run_too_small_to_tell_anything_is_refused() -> None:
    """The story needs a few machines, days and rounds."""
    for few in ({"fleet": 1}, {"days": 1}, {"rounds": 0}, {"round_days": 1}):
        with pytest.raises(DataError, match="at least 3 and at least 4 days, then at least 1 round"):
            Options(**few)
