"""A decision file in words: what will be decided, at what cost, what may hold it back, what leaves."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from aiotkit.core.conditions import describe
from aiotkit.core.decision import Decision, OnChange, Regular
from aiotkit.core.gates import Gate
from aiotkit.core.placement import MB, volumes
from aiotkit.core.policy import ASK
from aiotkit.lab.figures import span_in_words
from aiotkit.lab.policy_regions import policy_regions, trades

_MODES = {
    "shadow": "the device only notes what it would do",
    "suggest": "the device suggests it; a person does it",
    "confirm": "the device does it after a person's yes",
    "act": "the device does it by itself",
}
_UPLOADS = {
    "none": "nothing but the chain of digests: no window, no feature, no decision in clear",
    "features": "decision records with their features; windows only where the upload draw hits",
    "selected": "decision records, and windows chosen for their worth (near a threshold, faulty, drawn)",
    "raw": "everything, windows included",
}


def explain(decision: Decision) -> dict[str, str]:
    """Heading -> words, in reading order."""
    return {
        "What is decided": _what(decision),
        "What it looks at": "\n".join(_inputs(decision)),
        "What may be done": "\n".join(_actions(decision)),
        "What it costs": "\n".join(_costs(decision)),
        "The written rule": "\n".join(_rule(decision)),
        "What may hold it back": "\n".join(_gates(decision)) or "- nothing: there are no gates",
        "What may leave": _leaves(decision),
        "How it learns what happened": "\n".join(_outcome(decision)),
    } | ({"Worth a second look": "\n".join(notes)} if (notes := [f"- {n}" for n in advice(decision)]) else {})


def explain_text(decision: Decision) -> str:
    """The same as one text for a terminal."""
    title = f"{decision.id}, revision {decision.revision}" + (f": {decision.title}" if decision.title else "")
    parts = [f"{heading}\n{words}" for heading, words in explain(decision).items()]
    return "\n\n".join([title, *parts])


def _what(d: Decision) -> str:
    states = ", ".join(
        f"'{n}'" + (f" ({s.description})" if s.description else "") for n, s in d.states.items()
    )
    return (
        f"For each {d.subject} at {d.site.name} ({d.site.time_zone}): {d.question}\n"
        f"Asked every {span_in_words(d.window.every_s)}, "
        f"answered within {span_in_words(d.needs.deadline_ms / 1e3)}, "
        + ("also without network. " if d.needs.offline else "with the network there. ")
        + f"The state of the world is one of {states}; no device can see it directly."
    )


def _inputs(d: Decision) -> Iterator[str]:
    yield f"A window of {span_in_words(d.window.length_s)} of each signal:"
    for name, s in d.signals.items():
        if isinstance(s.sampling, Regular):
            how = f"{s.sampling.rate_hz:g} Hz, {d.samples(name)} values a window"
        else:
            assert isinstance(s.sampling, OnChange)
            how = f"when it changes; at most {span_in_words(s.sampling.max_age_s)} old"
        yield f"- {name} in {s.unit} ({how}); believed within [{s.range[0]:g}, {s.range[1]:g}]"
    for name, c in d.context.items():
        kind = f"one of {', '.join(c.values)}" if c.values is not None else f"in {c.unit}"
        duty = "needed" if c.required else "not needed"
        yield f"- context {name}, {kind}; at most {span_in_words(c.max_age_s)} old, {duty}"
    for name, h in d.history.items():
        yield f"- history {name}: {h.kind} of {h.of} over {span_in_words(h.over_s)}"


def _actions(d: Decision) -> Iterator[str]:
    for name, a in d.actions.items():
        facts = [_MODES[d.mode(name)]]
        if a.actuator is not None:
            command = ", ".join(f"{k} = {v}" for k, v in a.command.items())
            facts.append(f"moves '{a.actuator}'" + (f" ({command})" if command else ""))
            facts.append(
                "holds until a person resets it" if a.valid_for_s is None
                else f"ends by itself after {span_in_words(a.valid_for_s)}"
            )  # fmt: skip
        if not a.reversible:
            facts.append("IRREVERSIBLE: its intent is on disk before it happens")
        if a.intervenes:
            facts.append("changes what happens next, so its outcome is censored")
        yield f"- {name}" + (f" ({a.description})" if a.description else "") + f": {'; '.join(facts)}"
    yield f"In doubt (a needed input is missing, stale or impossible): '{d.recovery}'."


def _costs(d: Decision) -> Iterator[str]:
    if isinstance(d.costs, str):
        yield "Costs are not known yet. The written rule decides; no model can be judged in money."
        yield "Acting pays above a probability of 1 / (1 + r); r = how many times worse missing is."
        return
    yield f"One episode (until {span_in_words(d.outcome.horizon_s)} later) costs, in {d.currency}:"
    for action, row in d.costs.items():
        yield f"- {action}: " + ", ".join(f"{cost:g} if '{state}'" for state, cost in row.items())
    if d.human is not None:
        yield (
            f"- asking a person: {d.human.cost:g}; answers after {span_in_words(d.human.delay_s)}, right "
            f"{d.human.reliability:.0%} of the time"
        )
    yield "Once there is a model, the least expected cost decides:"
    pairs = {(t.good, t.bad) for t in trades(d)} or {next(iter(combinations(d.states, 2)))}
    for good, bad in sorted(pairs):
        parts = [_region(r.action, r.low, r.high) for r in policy_regions(d, good, bad)]
        yield f"- between '{good}' and '{bad}', by probability of '{bad}': {', '.join(parts)}"
    for t in trades(d):
        yield (
            f"- alone, '{t.act}' breaks even with '{t.wait}' at {t.threshold:.1%} '{t.bad}': "
            f"missing it costs {t.ratio:.3g} times what acting needlessly does"
        )
    unlike = "the written rule decides, as there is nobody to ask" if d.human is None else "a person is asked"
    yield f"- where a window is unlike anything in training: {unlike}"


def _region(action: str, low: float, high: float) -> str:
    word = "ask a person" if action == ASK else f"'{action}'"
    if low == 0 and high == 1:
        return f"{word} always"
    if low == 0:
        return f"{word} below {high:.1%}"
    return f"{word} above {low:.1%}" if high == 1 else f"{word} from {low:.1%} to {high:.1%}"


def _rule(d: Decision) -> Iterator[str]:
    yield "Until there is a model that earns its place, the first line that holds decides:"
    for i, branch in enumerate(d.rule, 1):
        because = f" ({branch.because})" if branch.because else ""
        if branch.when is None:
            yield f"- {i}. otherwise: {branch.action}{because}"
        else:
            yield f"- {i}. if {describe(branch.when)}: {branch.action}{because}"


def _gates(d: Decision) -> Iterator[str]:
    for gate in d.gates:
        yield f"- {gate.name} judges {', '.join(gate.actions) or 'every action'}: {_gate(gate)}"


def _gate(gate: Gate) -> str:
    no = "a person is asked" if gate.otherwise == "ask" else "the action is withheld"
    because = f" ({gate.because})" if gate.because else ""
    if gate.require is not None:
        return f"unless {describe(gate.require)}, {no}{because}; if that cannot be told, recovery"
    if gate.at_most is not None:
        limit = f"more than {gate.at_most.count} new commands within {span_in_words(gate.at_most.per_s)}"
        return f"at {limit}, {no}{because}"
    assert gate.min_interval_s is not None
    return f"within {span_in_words(gate.min_interval_s)} of the last new command, {no}{because}"


def _leaves(d: Decision) -> str:
    v, upload = volumes(d), d.needs.upload
    sizes = ", ".join(f"{u} {v.under(u) / MB:.3g}" for u in _UPLOADS)
    return (
        f"upload: {upload}. {_UPLOADS[upload][0].upper()}{_UPLOADS[upload][1:]}. "
        f"About {v.under(upload) / MB:.3g} MB a day and {d.subject} (each choice in MB a day: {sizes})."
    )


def _outcome(d: Decision) -> Iterator[str]:
    o = d.outcome
    silence = f"silence then means '{o.silence}'" if o.silence else "silence then means nothing: no label"
    yield (
        f"A state reported within {span_in_words(o.horizon_s)} after a decision is its outcome. Its label is "
        f"mature {span_in_words(o.maturity_s)} after it; {silence}."
    )
    for name, s in o.sources.items():
        what = f" ({s.description})" if s.description else ""
        yield f"- {name}{what} reports {', '.join(s.reports)}; right {s.reliability:.0%} of the time"
    acts = [n for n, a in d.actions.items() if a.intervenes]
    if acts:
        yield (
            f"After {', '.join(acts)} what would have happened stays unknown (censored); "
            f"{d.verify.share:.1%} of decisions are checked at random, whatever was done, to stay honest."
        )
    yield f"Differences in money are resampled by {d.resample}."


def advice(decision: Decision) -> Iterator[str]:
    """What is allowed and yet seldom meant."""
    acts = [n for n, a in decision.actions.items() if a.intervenes]
    if acts and decision.verify.share == 0:
        yield "verify.share is 0: once the device acts, what it prevents is never seen; recall is unknowable."
    moving = [n for n, a in decision.actions.items() if a.actuator is not None and n != decision.recovery]
    tame = [n for n in moving if not decision.actions[n].intervenes and decision.actions[n].command]
    if tame and not acts:
        yield f"no action has 'intervenes: true', yet {', '.join(tame)} moves an actuator: is that so?"
    if decision.window.every_s < decision.window.length_s:
        yield "windows overlap: every_s is shorter than length_s, neighbouring decisions share data."
    if decision.outcome.horizon_s < decision.window.every_s:
        yield "outcome.horizon_s is shorter than window.every_s: time between decisions has no label."
    if isinstance(decision.costs, str):
        yield "costs are unknown: fill them in before a model is to be judged."
        return
    yield from _idle_actions(decision)


def _idle_actions(decision: Decision) -> Iterator[str]:
    """An action that another one beats in every state is never proposed by expected cost."""
    assert not isinstance(decision.costs, str)
    for name, row in decision.costs.items():
        for other, better in decision.costs.items():
            if other != name and all(better[s] < row[s] for s in row):
                yield f"'{name}' costs more than '{other}' in every state: it will never be proposed by cost."
                break
