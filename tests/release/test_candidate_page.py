"""The page an approver reads says what the evidence says, and refuses to say it of something else."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")

from worlds.bundles import decision_of  # noqa: E402
from worlds.heads import held_out  # noqa: E402

from aiotkit.bundle.manifest import DecisionRef  # noqa: E402
from aiotkit.core.canonical import canonical_bytes  # noqa: E402
from aiotkit.core.decision import Decision  # noqa: E402
from aiotkit.core.errors import BundleError  # noqa: E402
from aiotkit.lab.leaks import Finding, LeakAudit  # noqa: E402
from aiotkit.release.candidate_page import candidate_page  # noqa: E402
from aiotkit.release.evidence import Evidence  # noqa: E402

ZERO = "sha256:" + "0" * 64


def line(policy: str, money: float, gap: float | None = None) -> dict[str, object]:
    low, high = (None, None) if gap is None else (gap - 1, gap + 1)
    return {
        "policy": policy,
        "money_per_subject_day": money,
        "difference": gap or 0.0,
        "low": low,
        "high": high,
        "sure": gap is not None,
        "subject_days": 240,
    }


def evidence(decision: Decision, *, passed: bool = True, **changes: object) -> Evidence:
    document = {
        "decision": DecisionRef(id=decision.id, revision=1, digest=decision.digest),
        "dataset": ZERO,
        "labels": {"mature": 213, "pending": 27},
        "family": "lda",
        "seed": 7,
        "variant": "float32",
        "bundle": "sha256:" + "b" * 64,
        "gates": [
            {"name": "beats_rule", "passed": True, "words": "cheaper than the rule: 12.5 against 31.25"},
            {"name": "leaks", "passed": passed, "words": "calendar <b>alone</b> tells the state"},
            {"name": "calibration", "passed": True, "words": "off by 0.021"},
        ],
        "tables": {
            "money": [line("candidate", 12.5, -18.75), line("rule", 31.25), line("oracle", 4.5, -26.75)],
            "events": [{"policy": "candidate", "alarms_per_day": 0.125, "missed": 3}],
            "sensitivity": [{"missed_costs": "× 0.5", "candidate": 9.75, "rule": 16.5}],
            "slices": [{"slice": "pump-3", "difference": 1.75}],
            "families": [{"family": "forest", "refused": "2 labels of 300 flip"}],
            "reliability": [
                {"said": 0.75, "happened": 0.7, "rows": 40},
                {"said": 0.95, "happened": 0.9, "rows": 200},
            ],
            "leaks": [{"check": "calendar", "severity": "fine", "words": "dates say nothing"}],
        },
        "quantization": [{"variant": "int8 dynamic", "usable": False, "why": "neither faster nor smaller"}],
        "bench": {
            "runs": 400,
            "warm_up": 40,
            "device": {"cpu": "toaster", "load_1min": 0.1},
            "threads": {"1": {"whole": {"p50_us": 41.5, "p95_us": 52.5, "p99_us": 93.5}, "peak_mb": 65.5}},
        },
        "figures": {"log_loss": 0.125},
    }
    return Evidence.model_validate(document | changes)


@pytest.fixture(scope="module")
def decision() -> Decision:
    return decision_of()


def words_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", re.sub(r'src="[^"]*"|alt="[^"]*"', "", html)))


def test_in_short_says_what_the_money_stands_beside(decision: Decision) -> None:
    """Threshold, best constant, oracle; how much it rests on; a rule that never applies; suspects."""
    named = {
        "candidate": 12.5,
        "rule": 31.25,
        "best threshold": 14.5,
        "always run": 40.0,
        "always stop": 33.5,
    }
    money = [line(name, spent) for name, spent in named.items()]
    tables = {
        "money": money,
        "novelty": [{"rows unlike training": 240, "share": 0.25, "money without it": 9.5}],
        "threshold": [{"on all rows": "'stop' when temp.max > 75, otherwise 'run'"}],
    }
    suspect = {
        "name": "leaks",
        "passed": True,
        "words": "no leak; to be read: giveaway: rul",
        "figures": {"suspect": 2},
    }
    held = held_out(decision)
    never = replace(held, policies={"rule": np.full(len(held.rows), "run", dtype=object)})
    made = evidence(decision, tables=tables, gates=[suspect])
    told = words_of(candidate_page(made, decision, held_out=never).html())
    for words in (
        "12.5 EUR", "the written rule: 31.25",
        "the best single threshold, tuned on other rows: 14.5 (on all rows: 'stop' when",
        "'always stop', the best of what needs no data: 33.5", f"rests on {held.rows['subject'].nunique()} ",
        "events in ",
        "240 rows (25.0%) are unlike", "would cost 9.5",
        "The written rule says 'run' on every row", "What may give the state away : giveaway: rul",
    ):  # fmt: skip
        assert words in told, words
    assert "no dearer than this candidate" not in told
    simple = [line("best threshold", 12.5) if row["policy"] == "best threshold" else row for row in money]
    told = words_of(candidate_page(evidence(decision, tables=tables | {"money": simple}), decision).html())
    assert "A single threshold is no dearer than this candidate" in told
    mixed = replace(held, policies={"rule": np.resize(["run", "stop"], len(held.rows)).astype(object)})
    told = words_of(candidate_page(evidence(decision), decision, held_out=mixed).html())
    assert "on every row" not in told
    assert "may give the state away" not in told


def test_the_page_shows_every_part_of_the_evidence(decision: Decision) -> None:
    """Question, gates in words, labels, money, what was missed, sensitivity, slices, families, variants."""
    card = {
        "not_known": ["It was never tried in winter."],
        "rule": ["otherwise: run"],
        "gates": {},
        "intended_use": "",
    }
    made = evidence(decision)
    page = candidate_page(made, decision, card=canonical_bytes(card)).html()
    told = words_of(page)
    for word in (
        decision.question, "passed every gate", "Cheaper than the written rule", "12.5 against 31.25",
        "mature: 213", "pending: 27", "12.5 EUR", "oracle", "0.125", "× 0.5", "9.75", "pump-3",
        "Off by 0.021",
        "2 labels of 300 flip", "dates say nothing", "neither faster nor smaller", "cpu toaster", "93.5",
        "log loss 0.125", "never tried in winter", made.digest, made.bundle, ZERO,
    ):  # fmt: skip
        assert word in told, word
    assert page.count("<figure>") == 2  # money and variants
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_held_out_rows_and_audit_add_their_figures(decision: Decision) -> None:
    """Probabilities, confusion and the audit are drawn where they are at hand."""
    finding = Finding("giveaway", "fine", "no column tells the state alone")
    columns = pd.DataFrame({"column": ["vib.rms"], "auc": [0.7], "state": ["worn"], "carries": [""]})
    audit = LeakAudit((finding,), {"row-shuffled folds": 0.8, "folds used": 0.8}, columns)
    page = candidate_page(evidence(decision), decision, held_out=held_out(decision), leaks=audit).html()
    assert page.count("<figure>") == 5


def test_a_refused_candidate_says_so_first(decision: Decision) -> None:
    """The heading and the first section name what stands against it; words are shown, never run."""
    page = candidate_page(evidence(decision, passed=False), decision).html()
    assert "refused by 1 gate<" in page
    first = page[page.index('id="s1"') : page.index('id="s2"')]
    assert "must not be released" in first
    assert "calendar &lt;b&gt;alone&lt;/b&gt; tells the state" in first
    assert "may be approved" not in page


def test_no_money_and_no_measurements_are_said_and_not_left_out(decision: Decision) -> None:
    """Evidence without tables still makes a page."""
    bare = evidence(decision, tables={}, quantization=(), bench={}, figures={}, labels={})
    told = words_of(candidate_page(bare, decision).html())
    assert "Nothing can be said about money" in told
    assert "no figures" in told


def test_evidence_of_another_decision_file_is_refused() -> None:
    """The page never shows a judgement beside a question it was not made for."""
    with pytest.raises(BundleError, match="Show the evidence with the decision file"):
        candidate_page(evidence(decision_of()), decision_of(revision=2))


def test_the_page_is_one_file(decision: Decision, tmp_path: Path) -> None:
    """Written once; the same evidence gives the same bytes."""
    one = candidate_page(evidence(decision), decision).write(tmp_path / "a.html").read_bytes()
    assert one == candidate_page(evidence(decision), decision).write(tmp_path / "b.html").read_bytes()
