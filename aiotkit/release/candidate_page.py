"""A candidate for whoever must approve it, as one page: what it decides, what it saves, what was asked of it.

What the page says is in the evidence, whose digest an approval names; figures of the probabilities and of the
leak audit are drawn from what was judged, where it is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from aiotkit.bundle.document import parse_json
from aiotkit.core.decision import Decision
from aiotkit.core.errors import BundleError
from aiotkit.lab.alarms import stretches
from aiotkit.lab.books import Book
from aiotkit.lab.figures import Plot, span_in_words
from aiotkit.lab.judge import ORACLE
from aiotkit.lab.plots_policy import money_intervals
from aiotkit.lab.plots_training import confusion, latency_bars, leak_figure, reliability_diagram
from aiotkit.lab.report import Report
from aiotkit.release.evidence import Evidence, GateResult, Row
from aiotkit.release.held_out import CANDIDATE, RULE, THRESHOLD, HeldOut

if TYPE_CHECKING:
    from aiotkit.lab.leaks import LeakAudit

_GATES = {
    "beats_rule": "Cheaper than the written rule",
    "beats_constant": "Cheaper than always doing the same",
    "no_worse_than_champion": "Not surely dearer than what is in force",
    "enough_labels": "Learned from enough",
    "leaks": "Nothing gives the state away",
    "calibration": "Probabilities mean something",
    "slices": "No group of cases pays for the rest",
    "alarms_per_day": "Alarms people can bear",
    "parity": "The graph decides as the model did",
    "flips": "Rounding changes no decisions",
    "latency": "In time",
    "memory": "Fits into memory",
}
#: what the page shows of a family, in this order
_FAMILIES = (
    "family", "chosen", "money", "difference", "low", "high", "log_loss", "brier", "accuracy", "margin",
    "refused",
)  # fmt: skip
_NO_DEARER = (
    "**A single threshold is no dearer than this candidate.** Write it into the rule of the decision file, "
    "and let the next candidate beat that."
)
#: what the page shows of a variant; the rest is in the evidence
_VARIANTS = ("variant", "usable", "why", "flips_share", "money_lost", "speedup", "size_bytes")


def candidate_page(
    evidence: Evidence,
    decision: Decision,
    *,
    card: bytes | None = None,
    held_out: HeldOut | None = None,
    leaks: LeakAudit | None = None,
) -> Report:
    """Build the page.

    Args:
        evidence: the judgement.
        decision: the file it was judged by.
        card: the bundle's ``card.json``.
        held_out: the rows it was judged on, for the figures of its probabilities.
        leaks: the audit, for its figure.

    Raises:
        BundleError: the evidence is for another decision file.
    """
    if evidence.decision.digest != decision.digest:
        raise BundleError(
            "candidate page: decision file",
            expected=evidence.decision.digest[:19],
            found=decision.digest[:19],
            do="Show the evidence with the decision file it was made for.",
        )
    count = len(evidence.refused)
    verdict = f"refused by {count} gate{'s'[: count != 1]}" if count else "passed every gate"
    page = Report(
        f"Candidate for {decision.title or decision.id}: {verdict}",
        f"{decision.id}, revision {decision.revision}; {evidence.family}, {evidence.variant}",
        footer=f"Evidence `{evidence.digest}`\n\nBundle `{evidence.bundle}`",
    )
    page.section("In short", _short(evidence, decision, held_out))
    page.section("What was asked of it", _gate_words(evidence), table=[_gate_row(g) for g in evidence.gates])
    page.section("What it was learned from", _origin(evidence))
    own = evidence.tables.get("own_words", ())
    if own:
        text = "Features computed by words of one's own, and the file that defines them, by its sha256."
        page.section("Own words", text, table=list(own))
    _add_money(page, evidence, decision)
    _add_probabilities(page, evidence, decision, held_out)
    _add_training(page, evidence, leaks)
    _add_release(page, evidence)
    if card is not None:
        page.section("Model card", _card_words(parse_json(card, "card.json")))
    return page


def _short(evidence: Evidence, decision: Decision, held_out: HeldOut | None) -> str:
    lines = [f"{decision.question}\n"]
    if evidence.passed:
        lines.append("**It may be approved**: every gate was passed. Approving it is a person's choice.")
    else:
        named = "\n".join(f"- **{_title(g)}**: {g.words}" for g in evidence.refused)
        lines.append(f"**It must not be released.** What stands against it:\n{named}")
    money = _by_policy(evidence.tables.get("money", ()))
    if CANDIDATE in money and RULE in money:
        words = next(iter(evidence.tables.get("threshold", ())), {}).get("on all rows", "")
        lines.append(_money_in_short(money, str(words), decision))
    if held_out is not None:
        lines += _doubts(evidence, held_out, decision)
    if evidence.margin:
        lines.append(
            f"\nIt acts, or asks, when that is expected to save more than **{evidence.margin:,.4g} "
            f"{decision.currency}** against waiting for the next look; training measured that margin."
        )
    return "\n".join(lines)


def _money_in_short(money: Mapping[str, Any], threshold: str, decision: Decision) -> str:
    spent = {name: row["money_per_subject_day"] for name, row in money.items()}
    always = min((name for name in spent if name.startswith("always ")), key=lambda n: spent[n], default="")
    others = {
        "the written rule": RULE,
        "the best single threshold, tuned on other rows": THRESHOLD,
        f"'{always}', the best of what needs no data": always,
        "doing at each row what its true state calls for": ORACLE,
    }
    more = {THRESHOLD: f" (on all rows: {threshold})"} if threshold else {}
    beside = [
        f"- {words}: {spent[name]:,.4g}{more.get(name, '')}"
        for words, name in others.items()
        if name in spent
    ]
    simple = spent.get(THRESHOLD, np.inf) <= spent[CANDIDATE]
    return (
        f"\nOn held-out rows it costs **{spent[CANDIDATE]:,.4g} {decision.currency}** per {decision.subject} "
        "and day. Beside it:\n\n" + "\n".join(beside) + ("\n\n" + _NO_DEARER if simple else "")
    )


def _doubts(evidence: Evidence, held_out: HeldOut, decision: Decision) -> list[str]:
    """What a reader should know before he believes the money."""
    rows, out = held_out.rows, []
    subjects, events = rows["subject"].nunique(), stretches(rows, decision)
    many = f"{subjects} subject{'s'[: subjects != 1]} and {events} event{'s'[: events != 1]}"
    out.append(f"\nAll this rests on {many} in {len(rows):,} rows.")
    out += _unfinished(evidence, held_out, decision)
    said = sorted({str(action) for action in held_out.policies[RULE]})
    if len(said) == 1:
        out.append(f"\nThe written rule says '{said[0]}' on every row: beating it says little.")
    guard: Any = next(iter(evidence.tables.get("novelty", ())), {})
    if guard.get("rows unlike training"):
        instead = "a person is asked" if decision.human is not None else "the written rule decides"
        out.append(
            f"\n{guard['rows unlike training']:,} rows ({guard['share']:.1%}) are unlike everything it "
            f"learned from: there {instead}, whatever the model says. Without that guard it would cost "
            f"{guard['money without it']:,.4g}."
        )
    leaks = next((g for g in evidence.gates if g.name == "leaks"), None)
    if leaks is not None and leaks.figures.get("suspect"):
        out.append(f"\n**What may give the state away**: {leaks.words.partition('to be read: ')[2]}.")
    return out


def _unfinished(evidence: Evidence, held_out: HeldOut, decision: Decision) -> list[str]:
    """A word where the record does not say how the candidate would have gone on."""
    if isinstance(decision.costs, str):
        return []
    book = Book.of(held_out.rows, decision)
    ended, waited = book.waited(book.codes(held_out.actions(decision, evidence.margin)))
    if not waited:
        return []
    were = "event was" if ended == 1 else "events were"
    return [
        f"\n{ended} {were} ended by what was then in force. In {waited} of them the candidate still waited: "
        "how it would have gone on nobody knows. It is charged as it fared on the others."
    ]


def _title(gate: GateResult) -> str:
    return _GATES.get(gate.name, gate.name.replace("_", " "))


def _gate_words(evidence: Evidence) -> str:
    passed = sum(gate.passed for gate in evidence.gates)
    return f"{passed} of {len(evidence.gates)} gates passed. Too little data is no pass."


def _gate_row(gate: GateResult) -> dict[str, Any]:
    answer = "yes" if gate.passed else "**no**"
    return {"gate": _title(gate), "passed": answer, "because": gate.words}


def _origin(evidence: Evidence) -> str:
    labels = "\n".join(f"- {status}: {n:,}" for status, n in sorted(evidence.labels.items()))
    learned = _words(evidence, "enough_labels")
    champion = f"`{evidence.champion}`" if evidence.champion else "none: the written rule decides"
    return (
        f"Rows by what is known of their state (only what is believed was learned from):\n{labels}\n\n"
        f"{learned}\n\nExamples `{evidence.dataset}`; seed {evidence.seed}. In force now: {champion}."
    )


def _words(evidence: Evidence, name: str) -> str:
    """A gate's words as a sentence begins; '' where it was not asked."""
    words = next((gate.words for gate in evidence.gates if gate.name == name), "")
    return words[:1].upper() + words[1:]


def _by_policy(table: Sequence[Row]) -> dict[str, Any]:
    return {str(row["policy"]): row for row in table}


def _add_money(page: Report, evidence: Evidence, decision: Decision) -> None:
    table = evidence.tables.get("money", ())
    if not table:
        page.section("Money", "Nothing can be said about money: costs are unknown, or no state is known.")
        return
    frame = pd.DataFrame(list(table))
    frame[["low", "high"]] = frame[["low", "high"]].astype(float)
    figures = next((gate.figures for gate in evidence.gates if gate.name == f"beats_{RULE}"), {})
    resample = str(figures.get("resample", decision.resample))
    frame.attrs.update(baseline=RULE, resample=resample, level=decision.limits.confidence)
    words = (
        f"What each policy would have cost on rows that no head had seen, per {decision.subject} and day, in "
        f"{decision.currency}: one cost an episode of at most {span_in_words(decision.outcome.horizon_s)}. "
        "The states are those that were observed; what acting would have changed of them is not known here. "
        "The best threshold is one limit on one column, tuned on other folds than it is judged on; "
        f"{figures.get('words', 'no intervals')}."
    )
    page.section("Money", words, figure=money_intervals(frame, decision.currency), table=frame)
    page.section(
        "Found and missed",
        "Alarms are stretches of any action but the quiet one; an event is found when an alarm lies within "
        f"{span_in_words(decision.outcome.horizon_s)} before it. A state that lasts longer than that counts "
        "as an event each time.",
        table=list(evidence.tables.get("events", ())) or None,
    )
    page.section(
        "If the costs were other ones",
        "What the ordinary action costs more than the best one in the states it does not fit (letting a "
        "failure happen) at half, once and twice the declared price; all other costs stay. The candidate "
        "decides anew from the same probabilities; the rule does what it always did. Differences are to the "
        "rule, negative is cheaper.",
        table=list(evidence.tables.get("sensitivity", ())) or None,
    )
    slices = list(evidence.tables.get("slices", ()))
    words = _words(evidence, "slices")
    page.section("Where it is better and where not", words, table=slices or None)


def _add_probabilities(
    page: Report, evidence: Evidence, decision: Decision, held_out: HeldOut | None
) -> None:
    words = _words(evidence, "calibration")
    figures: list[Plot] = []
    if held_out is not None and len(held_out.rows):
        states = held_out.rows["state"].tolist()
        likeliest = np.array(list(decision.states), dtype=object)[held_out.p.argmax(axis=1)].tolist()
        figures = [reliability_diagram(held_out.p, states, decision), confusion(states, likeliest, decision)]
    page.section(
        "Can its probabilities be believed?",
        f"{words}. The table: what was said of the likeliest state, how often that was true, rows.",
        figure=figures,
        table=list(evidence.tables.get("reliability", ())) or None,
    )


def _add_training(page: Report, evidence: Evidence, leaks: LeakAudit | None) -> None:
    families = [
        {name: row[name] for name in _FAMILIES if name in row} for row in evidence.tables.get("families", ())
    ]
    figures_said = ", ".join(
        f"{name.replace('_', ' ')} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in sorted(evidence.figures.items())
    )
    page.section(
        "Families that competed",
        "Each was judged by money on the same held-out rows; the difference is to the cheapest, and the "
        "simplest that cannot be told from it is chosen. One that cannot be exported faithfully is refused."
        f"\n\nOf the chosen one, **{evidence.family}**: {figures_said or 'no figures'}.",
        table=families or None,
    )
    words = _words(evidence, "leaks")
    figure = None if leaks is None else leak_figure(leaks)
    page.section("Leak audit", words, figure=figure, table=list(evidence.tables.get("leaks", ())) or None)


def _add_release(page: Report, evidence: Evidence) -> None:
    page.section(
        "In integers",
        "The head (never the features) in eight-bit integers, judged by the decisions that change, then by "
        f"time and size on this computer. Chosen: **{evidence.variant}**.",
        figure=_variants(evidence),
        table=[{k: row.get(k) for k in _VARIANTS} for row in evidence.quantization] or None,
    )
    bench: Any = evidence.bench
    if not bench:
        return
    device = ", ".join(f"{k} {v}" for k, v in bench.get("device", {}).items() if v is not None)
    table = [
        {"threads": setting, "part": part}
        | {k: one[part][k] for k in ("p50_us", "p95_us", "p99_us")}
        | {"peak_mb": one.get("peak_mb"), "load_ms": one.get("load_ms")}
        for setting, one in bench["threads"].items()
        for part in ("whole", "head")
        if part in one
    ]
    page.section(
        "On this computer",
        f"One row at a time in a fresh process, {bench.get('runs')} runs after {bench.get('warm_up')} that "
        f"do not count. {device}.",
        table=table,
    )


def _variants(evidence: Evidence) -> Plot | None:
    if not evidence.quantization:
        return None
    frame = pd.DataFrame([dict(row) for row in evidence.quantization])
    figures = frame.reindex(columns=["p50_us", "p99_us", "size_bytes", "flips_share"]).astype(float)
    figures["variant"], figures["chosen"] = frame["variant"], frame["variant"] == evidence.variant
    figures["note"] = frame["why"].str.removeprefix("not applicable: ")
    return latency_bars(figures.rename(columns={"flips_share": "flips"}))


def _card_words(card: Mapping[str, Any]) -> str:
    model = card.get("model") or {}
    parts = [card.get("intended_use", "")]
    if model:
        parts.append(
            f"Reads {len(model['reads'])} columns: {', '.join(f'`{c}`' for c in model['reads'][:40])}"
        )
    parts.append("Not known:\n" + "\n".join(f"- {line}" for line in card.get("not_known", ())))
    parts.append(
        "The written rule, which decides without a model:\n" + "\n".join(f"- {r}" for r in card["rule"])
    )
    parts.append("Gates:\n" + "\n".join(f"- {name}: {words}" for name, words in card["gates"].items()))
    if model.get("notes"):
        parts.append("Training says:\n" + "\n".join(f"- {note}" for note in model["notes"]))
    return "\n\n".join(part for part in parts if part)
