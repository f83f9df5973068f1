"""Reading a decision file from YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aiotkit.core.errors import DecisionFileError

pytestmark = pytest.mark.desk
yaml = pytest.importorskip("yaml")


def text_of(document: dict[str, Any]) -> str:
    return str(yaml.safe_dump(document, sort_keys=False))


def read(text: str) -> Any:
    from aiotkit.lab.decision_file import read_decision_text

    return read_decision_text(text, "guard.yaml")


def test_a_file_reads_as_the_same_decision_as_its_document(document: dict[str, Any], guard: Any) -> None:
    """YAML adds nothing and loses nothing: the digest is that of the document."""
    assert read(text_of(document)).digest == guard.digest


@pytest.mark.parametrize(
    ("line", "where"),
    [("revision: 2", "'revision' is given twice; found first on line 3"), ("id: x", "'id' is given twice")],
)
def test_a_key_given_twice_is_refused(document: dict[str, Any], line: str, where: str) -> None:
    """YAML would silently keep the last of two equal keys; here both are named."""
    with pytest.raises(DecisionFileError, match=where):
        read(text_of(document) + line + "\n")


def test_a_key_given_twice_deep_inside_is_refused(document: dict[str, Any]) -> None:
    """The same holds within flow mappings."""
    text = text_of(document).replace(
        "needs:\n  deadline_ms: 500", "needs: {deadline_ms: 500, deadline_ms: 5}"
    )
    with pytest.raises(DecisionFileError, match=r"line \d+: key 'deadline_ms' is given twice"):
        read(text)


def test_words_that_yaml_11_turns_into_something_else_stay_words(document: dict[str, Any]) -> None:
    """`no`, `on` and `06:00` are words, `1e3` is a number."""
    text = text_of(document)
    text = text.replace("  worn: {}", "  no: {}").replace("- worn", "- no").replace("worn:", "no:")
    text = text.replace(
        "time_zone: Europe/Berlin",
        "time_zone: Europe/Berlin\n  shifts:\n  - {name: on, days: [mon], from: 06:00, to: 14:00}",
    ).replace("deadline_ms: 500", "deadline_ms: 1e3")
    decision = read(text)
    assert "no" in decision.states
    assert (decision.site.shifts[0].name, decision.site.shifts[0].from_) == ("on", "06:00")
    assert decision.needs.deadline_ms == 1000


@pytest.mark.parametrize(
    ("unit", "hint"),
    [("degC", "did you mean 'Cel'"), ("m/s²", "did you mean 'm/s2'"), ("bananas", "ucum.org")],
)
def test_a_unit_that_is_no_ucum_code_is_refused_with_a_hint(
    document: dict[str, Any], unit: str, hint: str
) -> None:
    """Units mean one thing or the file is refused, saying where."""
    document["signals"]["oil"]["unit"] = unit
    with pytest.raises(
        DecisionFileError, match=rf"signals.oil.unit: '{unit}' is no UCUM unit.*{hint}.*line \d+"
    ):
        read(text_of(document))


def test_an_unknown_time_zone_is_refused_with_a_hint(document: dict[str, Any]) -> None:
    """A mistyped zone would shift every shift."""
    document["site"]["time_zone"] = "Europe/Berlino"
    with pytest.raises(DecisionFileError, match="did you mean 'Europe/Berlin'"):
        read(text_of(document))


def test_every_problem_carries_its_line(document: dict[str, Any]) -> None:
    """A problem points at its line in the file."""
    document["costs"]["run"]["wron"] = document["costs"]["run"].pop("worn")
    text = text_of(document)
    line = next(i for i, x in enumerate(text.split("\n"), 1) if "wron" in x)
    with pytest.raises(
        DecisionFileError, match=rf"costs.run.wron: unknown state.*did you mean 'worn'.*line {line}\)"
    ):
        read(text)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "format: 2", "1: 2"])
def test_what_is_no_decision_file_is_refused_plainly(text: str) -> None:
    """Broken YAML, a list, nothing, another format, a key that is no word: a DecisionFileError each."""
    with pytest.raises(DecisionFileError, match=r"guard\.yaml"):
        read(text)


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """The message names the next step."""
    from aiotkit.lab.decision_file import read_decision

    with pytest.raises(DecisionFileError, match=r"no such file\. Write one with: aiotkit init"):
        read_decision(tmp_path / "none.yaml")


def test_the_template_is_a_decision_file_without_a_problem() -> None:
    """What init writes reads back, with the answers in it."""
    from aiotkit.lab.template import Draft, SignalDraft, write_draft

    drafts = {"pr": SignalDraft("bar", None, 0, 10), "v": SignalDraft("mm/s", 50.0, -5, 5, "a guess: 'x'")}
    costs = {"go": {"fine": 0.0, "ill": 9.5}, "halt": {"fine": 1.0, "ill": 1.0}}
    text = write_draft(
        Draft(
            "x", 'Is "it" ill?', states=("fine", "ill"), actions=("go", "halt"), costs=costs, signals=drafts
        )
    )
    decision = read(text)
    assert decision.question == 'Is "it" ill?'
    assert decision.costs == costs
    assert {n: s.unit for n, s in decision.signals.items()} == {"pr": "bar", "v": "mm/s"}


def test_answers_that_make_no_decision_are_refused() -> None:
    """A template is never written with a problem in it."""
    from aiotkit.lab.template import Draft, write_draft

    with pytest.raises(DecisionFileError, match=r"costs\.run\.worn: missing"):
        write_draft(Draft("x", costs={"run": {"healthy": 0.0}}))
    with pytest.raises(DecisionFileError, match="two states and two actions"):
        write_draft(Draft("x", states=("one",)))


def test_explain_says_the_thresholds_that_the_policy_uses(document: dict[str, Any]) -> None:
    """Around each threshold the policy proposes what the words say."""
    from aiotkit.core.decision import parse_decision
    from aiotkit.core.policy import least_expected_cost
    from aiotkit.lab.explain import advice, explain_text
    from aiotkit.lab.policy_regions import policy_regions

    document["human"] = {"cost": 5, "delay_s": 60, "reliability": 0.9}
    decision = parse_decision(document)
    regions = policy_regions(decision, "ok", "broken")
    assert regions[0].action == "run"
    assert len(regions) >= 2
    for r in regions:
        for p in (r.low + 1e-9, (r.low + r.high) / 2, r.high - 1e-9):
            proposal = least_expected_cost({"ok": 1 - p, "broken": p, "worn": 0.0}, decision)
            assert proposal.action == r.action
    text = explain_text(decision)
    assert "- where a window is unlike anything in training: " in text
    assert f"{regions[0].high:.1%}" in text
    assert "mature 48 h after it" in text
    assert not [n for n in advice(decision) if "verify" in n]
    document["verify"] = {"share": 0.0}
    assert [n for n in advice(parse_decision(document)) if "verify.share is 0" in n]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [x]\nb: [*a, *a]\n", "line 1: anchors"),
        ("&a [*a]\n", "anchors"),
        ("[" * 100_000, "nested more than 64 levels"),
        ("[" + "0," * 70_000 + "0]", "more than 30,000 values"),
        ("#" * (1 << 20) + "\n", "at most 1 MiB"),
        ("format: 1" + "0" * 5000, "5,001 digits"),
        ("format: 1\0", "not valid YAML"),
        ("context: {m: {values: [idle, yes]}}", "Put it in quotes"),
    ],
)
def test_a_file_made_to_exhaust_the_reader_is_refused(text: str, said: str) -> None:
    """Size, depth, aliases and digits are bounded before anything is built."""
    with pytest.raises(DecisionFileError, match=said):
        read(text)
