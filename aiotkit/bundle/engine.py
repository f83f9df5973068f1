"""Open a bundle and decide with it: pure, timed stage by stage, the same on desk and device.

``Engine.decide`` looks at nothing but its arguments: no clock that counts, no file, no randomness of its
own. Stages: check inputs, run the graph, propose (policy), judge (gates), resolve (autonomy).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from time import perf_counter_ns

from aiotkit.bundle.inputs import InputChecks
from aiotkit.bundle.interface import Interface, parse_interface
from aiotkit.bundle.session import GraphSession, Outputs
from aiotkit.bundle.tuned import with_policy
from aiotkit.core.conditions import fields
from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.errors import BundleError, EngineError
from aiotkit.core.features import NOVELTY
from aiotkit.core.gates import Gate, GateKeeper, Ruling, model_knows
from aiotkit.core.history import history_values, update_history
from aiotkit.core.policy import ASK, LeastExpectedCost, Proposal, Rule
from aiotkit.core.records import (
    Answered,
    Decided,
    DecisionInput,
    Draw,
    EngineState,
    Question,
    draw,
    later_us,
)
from aiotkit.core.resolution import (
    Moment,
    Resolution,
    accepted_answer,
    changes_after,
    is_change,
    posture_after,
    resolve,
)

#: share of ordinary windows that leave under ``upload: selected``
SELECTED_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the first stages found."""

    graph: Outputs
    history: dict[str, float]
    values: dict[str, object]
    faults: dict[str, str]


class Engine:
    """A decision, its graph and its gates, ready to decide. For one thread: input buffers are reused.

    Args:
        files: the files of a *verified* bundle, path -> bytes; ``decision.json``, ``interface.json`` and
            ``graph.onnx`` are read.

    Raises:
        BundleError: a file is missing, or the graph does not have the declared inputs and outputs.
        EngineError: the interface does not fit the decision.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        for name in ("decision.json", "interface.json", "graph.onnx"):
            if name not in files:
                raise BundleError(f"bundle: '{name}' is missing", found=", ".join(sorted(files)))
        written = parse_decision(json.loads(files["decision.json"]), "decision.json")
        self.decision: Decision = with_policy(written, files)
        self.interface: Interface = parse_interface(files["interface.json"])
        _check_interface(self.decision, self.interface)
        self._graph = GraphSession(files["graph.onnx"], self.interface)
        self._checks = InputChecks(self.decision)
        self._policy = LeastExpectedCost(self.decision)
        self._read = [(name, self.interface.features.index(name)) for name in self.decision.features()]
        self._context_read, self._history_read, self._p_read = (
            [
                (field, field.partition(".")[2])
                for field in self.decision.fields_read()
                if field.startswith(scope)
            ]
            for scope in ("context.", "history.", "p.")
        )
        self._head_reads = frozenset(self.interface.reads)
        self._rule = Rule(self.decision.rule)
        self._keeper = GateKeeper(gates_in_force(self.decision, self.interface))
        self._nobody_to_ask = self.decision.human is None and unwatched(self.decision, self.interface)

    def decide(self, state: EngineState, given: DecisionInput) -> tuple[Decided, dict[str, float]]:
        """One decision.

        Args:
            state: what the last decision handed on (``Decided.state``), or ``EngineState()`` at first.
            given: windows, context with ages, what people said, identity and instant.

        Returns:
            What was decided, with the next state, and the time each stage took (µs).
        """
        started = perf_counter_ns()
        windows, signal_faults = self._checks.windows(given)
        context, context_faults = self._checks.context(given)
        checked = perf_counter_ns()
        history = history_values(self.decision.history, state.history, given.window_end_us / 1e6)
        outputs = self._graph.run(windows, history, context)
        ran = perf_counter_ns()
        seen = self._see(outputs, history, context, signal_faults | context_faults)
        moment = Moment(given.seed, given.now_us, state.posture, state.question, given.operator)
        proposal = self._propose(state, given, seen, moment)
        proposed = perf_counter_ns()
        ruling = self._keeper.judge(
            proposal.action or self.decision.recovery,
            seen.values,
            state.memory,
            state.changes,
            given.now_us / 1e6,
            is_change=is_change(moment, proposal.action),
        )
        judged = perf_counter_ns()
        resolution = resolve(self.decision, proposal, ruling, moment)
        decided = self._conclude(state, given, seen, proposal, ruling, resolution, moment)
        spans = {
            "check": (checked - started) / 1e3,
            "graph": (ran - checked) / 1e3,
            "policy": (proposed - ran) / 1e3,
            "gates": (judged - proposed) / 1e3,
            "resolve": (perf_counter_ns() - judged) / 1e3,
        }
        return decided, spans

    def _see(
        self,
        outputs: Outputs,
        history: dict[str, float],
        context: dict[str, float | str],
        faults: dict[str, str],
    ) -> _Seen:
        """The values that rule and gates read, by field name; what is not known is missing."""
        numbers = outputs.features.numbers
        values: dict[str, object] = {field: numbers[i] for field, i in self._read}
        for field, name in self._context_read:
            if name in context:
                values[field] = context[name]
        for field, name in self._history_read:
            values[field] = history[name]
        if outputs.p is not None:
            for field, name in self._p_read:
                values[field] = outputs.p[name]
        if outputs.novelty is not None:
            values[NOVELTY] = outputs.novelty
        return _Seen(outputs, history, values, faults)

    def _propose(self, state: EngineState, given: DecisionInput, seen: _Seen, moment: Moment) -> Proposal:
        answer = accepted_answer(self.decision, moment)
        missing = self._checks.required_fault(seen.faults)
        if given.operator.override is not None:
            chosen = Proposal(given.operator.override, "ordered by a person")
        elif missing:
            chosen = Proposal(None, missing)
        elif answer is not None:
            chosen = Proposal(answer.action, f"answered by {answer.operator}")
        elif seen.graph.p is None or isinstance(self.decision.costs, str):
            return self._rule.propose(seen.values, state.memory, given.now_us / 1e6)
        elif self._nobody_to_ask and not math.isfinite(seen.graph.novelty or 0.0):
            chosen = Proposal(None, "how novel the window is could not be computed")
        elif guessed := self._guessed(seen.faults) or self._unlike(seen.graph.novelty):
            rule = self._rule.propose(seen.values, state.memory, given.now_us / 1e6)
            return replace(rule, reason=f"{guessed}; by the written rule: {rule.reason}")
        else:
            chosen = self._policy.propose(seen.graph.p)
        if chosen.action == ASK:
            chosen = _settled(chosen, state.answered, given.now_us)
        memory = self._rule.watch(seen.values, state.memory, given.now_us / 1e6)
        return Proposal(chosen.action, chosen.reason, chosen.expected_costs, memory)

    def _guessed(self, faults: Mapping[str, str]) -> str:
        """The first signal that the model reads and that cannot be believed, in words, or an empty string.

        The model puts something likely in its place: enough to say what it thinks, not to act on. The
        written rule proposes then; it says itself which bad inputs it can do without (``quorum``).
        """
        for name, words in faults.items():
            if name in self._head_reads:
                return f"signal '{name}': {words}"
        return ""

    def _unlike(self, novelty: float | None) -> str:
        """That a window is unlike training and nobody can be asked about it, in words, or an empty string."""
        if not self._nobody_to_ask or novelty is None or novelty <= 1:
            return ""
        return f"the window is unlike anything in training (novelty {novelty:.3g})"

    def _conclude(
        self,
        state: EngineState,
        given: DecisionInput,
        seen: _Seen,
        proposal: Proposal,
        ruling: Ruling,
        resolution: Resolution,
        moment: Moment,
    ) -> Decided:
        posture = posture_after(moment, resolution)
        idle = resolution.final if resolution.mode != "dry_run" else None
        verify = draw(given.seed, "verify", self.decision.verify.share)
        after = EngineState(
            history=update_history(
                self.decision.history, state.history, seen.graph.features, given.window_end_us / 1e6
            ),
            memory={**proposal.memory, **ruling.memory},
            posture=posture,
            changes=changes_after(state.changes, moment, resolution.command),
            question=resolution.question or self._still_open(moment, resolution),
            answered=self._answered(state, moment),
        )
        return Decided(
            features=seen.graph.features,
            history=seen.history,
            p=seen.graph.p,
            expected_costs=proposal.expected_costs,
            faults=seen.faults,
            proposed=proposal.action,
            proposal_reason=proposal.reason,
            verdict=ruling.verdict,
            verdicts=ruling.verdicts,
            final=resolution.final,
            final_reason=resolution.why,
            in_force=posture.action if posture is not None else idle,
            mode=resolution.mode,
            command=resolution.command,
            question=resolution.question,
            verify=verify,
            upload=self._upload(given.seed, seen, resolution, verify),
            state=after,
            novelty=seen.graph.novelty,
        )

    def _still_open(self, moment: Moment, resolution: Resolution) -> Question | None:
        """A question that nothing has settled stays open: somebody is on his way.

        It is settled by an answer, by its time, and by an action that intervenes.
        """
        old, final = moment.open_question, resolution.final
        if old is None or old.kind != "ask" or moment.now_us > old.until_us:
            return None
        acts = final is not None and self.decision.actions[final].intervenes
        return None if acts or accepted_answer(self.decision, moment) is not None else old

    def _answered(self, state: EngineState, moment: Moment) -> Answered | None:
        """What a person answered last, as long as it holds."""
        answer, human = accepted_answer(self.decision, moment), self.decision.human
        if answer is not None and human is not None and human.holds_s:
            return Answered(answer.action, answer.operator, later_us(moment.now_us, human.holds_s))
        held = state.answered
        return held if held is not None and moment.now_us < held.until_us else None

    def _upload(self, seed: str, seen: _Seen, resolution: Resolution, verify: Draw) -> Draw:
        """Whether the raw window leaves, with the probability it had (value-aware when ``selected``)."""
        policy = self.decision.needs.upload
        if policy == "raw":
            return draw(seed, "upload", 1.0)
        if policy != "selected":
            return draw(seed, "upload", 0.0)
        telling = bool(seen.faults) or resolution.question is not None or verify.hit
        return draw(seed, "upload", 1.0 if telling else SELECTED_SHARE)


def _settled(asks: Proposal, held: Answered | None, now_us: int) -> Proposal:
    """The same doubt that a person settled not long ago is not put to him again."""
    if held is None or now_us >= held.until_us:
        return asks
    hours = (held.until_us - now_us) / 3.6e9
    words = (
        f"{held.operator} answered '{held.action}', which holds for another {hours:.1f} h; else {asks.reason}"
    )
    return Proposal(held.action, words, asks.expected_costs)


def gates_in_force(decision: Decision, interface: Interface) -> list[Gate]:
    """The gates that an engine asks: the decision's that this graph can answer, and its own on novelty.

    A gate on ``p`` waits for a model. Where the graph says how novel a window is and nothing in the decision
    looks at it, ``model_knows`` asks a person; without one the engine lets the written rule propose.
    """
    gates = [
        gate
        for gate in decision.gates
        if (interface.novelty or not gate.reads_novelty)
        and (interface.states or not any(field.startswith("p.") for field in gate.fields()))
    ]
    if decision.human is not None and unwatched(decision, interface):
        gates.append(model_knows())
    return gates


def unwatched(decision: Decision, interface: Interface) -> bool:
    """Whether a graph says how novel a window is, and nothing in the decision looks at it."""
    proposes = not interface.states and any(
        NOVELTY in fields(b.when) for b in decision.rule if b.when is not None
    )
    return interface.novelty and not proposes and not any(gate.reads_novelty for gate in decision.gates)


def _check_interface(decision: Decision, interface: Interface) -> None:
    missing = set(decision.features()) - set(interface.features)
    if missing:
        raise EngineError(
            "interface.json: features that the decision reads are missing", found=", ".join(sorted(missing))
        )
    if interface.states and set(interface.states) != set(decision.states):
        raise EngineError(
            "interface.json: states",
            expected=str(sorted(decision.states)),
            found=str(sorted(interface.states)),
        )
    for name, n in interface.inputs.items():
        if name not in decision.signals or decision.samples(name) != n:
            raise EngineError(
                f"interface.json: input '{name}'", expected=f"a signal of the decision, {n} samples a window"
            )
    for name in (*interface.history_inputs, *interface.context_inputs):
        problem = _unknown_column(decision, name)
        if problem:
            raise EngineError(f"interface.json: '{name}'", expected=problem)
    _check_novelty(decision, interface)


def _unknown_column(decision: Decision, name: str) -> str:
    """What a column of history or context should be, or an empty string when the decision has it."""
    scope, _, field = name.partition(".")
    if scope == "history":
        known = [f"history.{h}" for h in decision.history]
        return "" if name in known else f"one of {known}"
    field, equals, _ = field.partition("=")
    declared = decision.context.get(field)
    if declared is None:
        return f"context of the decision: {sorted(decision.context)}"
    if declared.values is None:
        return f"the number 'context.{field}'" if equals else ""
    known = [f"context.{field}={value}" for value in declared.values]
    return "" if name in known else f"one of {known}"


def _check_novelty(decision: Decision, interface: Interface) -> None:
    """Refuse a graph without novelty where the decision counts on it."""
    if interface.novelty:
        return
    reading = [f"rule[{i}]" for i, b in enumerate(decision.rule) if b.when and NOVELTY in fields(b.when)]
    if interface.states:
        reading += [f"gate '{gate.name}'" for gate in decision.gates if gate.reads_novelty]
    if reading:
        raise EngineError(
            f"interface.json: {reading[0]} reads 'novelty'",
            expected="a graph that says how novel a window is",
            found="none",
            do="Train a detector beside the head, or take the condition out.",
        )
