"""Evidence: one document, one digest, nothing of when or where in it."""

from __future__ import annotations

import json

import pytest

from aiotkit.core.errors import BundleError
from aiotkit.core.records import MAX_US

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")

from aiotkit.bundle.manifest import DecisionRef  # noqa: E402
from aiotkit.release.evidence import Evidence, GateResult, parse_evidence, rows  # noqa: E402

ZERO = "sha256:" + "0" * 64


def evidence(*, passed: bool = True, **changes: object) -> Evidence:
    gates = (
        GateResult(name="beats_rule", passed=True, words="cheaper", figures={"difference": -2.5}),
        GateResult(name="leaks", passed=passed, words="nothing found"),
    )
    document = {
        "decision": DecisionRef(id="press-guard", revision=1, digest=ZERO),
        "dataset": ZERO,
        "labels": {"mature": 20, "pending": 4},
        "family": "lda",
        "seed": 7,
        "variant": "float32",
        "bundle": ZERO,
        "gates": gates,
        "tables": {"money": ({"policy": "candidate", "money_per_subject_day": 1.25},)},
        "quantization": ({"variant": "float32", "speedup": 1.0},),
        "bench": {"threads": {"1": {"whole": {"p99_us": 80.0}}}},
        "figures": {"log_loss": 0.25},
    }
    return Evidence.model_validate(document | changes)


def test_evidence_is_read_as_it_was_written() -> None:
    """Bytes, digest and verdict survive writing and reading."""
    made = evidence()
    again = parse_evidence(made.canonical())
    assert (again, again.digest, again.canonical()) == (made, made.digest, made.canonical())
    assert json.loads(made.canonical())["format"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "sha256:" + "1" * 64},
        {"bundle": "sha256:" + "1" * 64},
        {"champion": ZERO},
        {"seed": 8},
        {"labels": {"mature": 21, "pending": 4}},
        {"figures": {"log_loss": 0.25000000000000006}},
        {"bench": {"threads": {"1": {"whole": {"p99_us": 80.5}}}}},
        {"tables": {"money": ({"policy": "candidate", "money_per_subject_day": 1.26},)}},
        {"quantization": ({"variant": "float32", "speedup": 1.1},)},
        {"gates": (GateResult(name="beats_rule", passed=True, words="cheaper", figures={"d": -2.4}),)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_any_other_figure_is_another_digest(changes: dict[str, object]) -> None:
    """An approval of one judgement is none of another, however little they differ."""
    assert evidence(**changes).digest != evidence().digest


def test_one_gate_that_is_not_passed_refuses_the_candidate() -> None:
    """All gates or nothing; the refused ones are named."""
    assert evidence().passed
    refused = evidence(passed=False)
    assert not refused.passed
    assert [gate.name for gate in refused.refused] == ["leaks"]
    assert refused.gate("beats_rule").passed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gates": []}, "gates"),
        ({"gates": [{"name": "a", "passed": True, "words": "x"}] * 2}, "a gate is there twice"),
        ({"gates": [{"name": "a", "passed": True, "words": ""}]}, "words"),
        ({"format": 2}, "format"),
        ({"approved": True}, "approved"),
        ({"seed": "seven"}, "seed"),
    ],
)
def test_evidence_that_is_none_is_refused(change: dict[str, object], words: str) -> None:
    """No gates, a gate twice, one without words, another format, unknown keys: refused, and named."""
    document = json.loads(evidence().canonical()) | change
    with pytest.raises(BundleError, match=words):
        parse_evidence(json.dumps(document).encode())


def test_tables_become_cells_that_json_can_carry() -> None:
    """Numpy's numbers as plain ones, what is not finite as nothing, everything else in words."""
    frame = pd.DataFrame({"a": [1.5, np.nan], "b": [np.int64(MAX_US), 2], "c": [True, False]})
    assert rows(frame) == ({"a": 1.5, "b": MAX_US, "c": True}, {"a": None, "b": 2, "c": False})
    assert rows([{"k": np.bool_(True), "when": pd.Timestamp("2026-01-01"), "inf": float("inf")}]) == (
        {"k": True, "when": "2026-01-01 00:00:00", "inf": None},
    )
