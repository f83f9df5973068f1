"""Open a bundle and decide with it: pure, timed stage by stage, the same on desk and device.

``Engine.decide`` looks at nothing but its arguments: no clock that counts, no file, no randomness of its
own. Stages: check inputs, run the graph, propose (policy), judge (gates), resolve (autonomy).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter_ns

import numpy as np
import onnxruntime as ort

from aiotkit.bundle.inputs import Array, checked_context, checked_windows, required_fault
from aiotkit.bundle.interface import Interface, parse_interface
from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.errors import BundleError, EngineError
from aiotkit.core.gates import GateKeeper, Ruling
from aiotkit.core.history import history_values, update_history
from aiotkit.core.policy import Proposal, Rule, least_expected_cost
from aiotkit.core.records import (
    Decided,
    DecisionInput,
    Draw,
    EngineState,
    draw,
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
_LINE = 64  # bytes of a cache line; onnxruntime aligns its own tensors to it


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the first stages found."""

    features: dict[str, float]
    history: dict[str, float]
    p: dict[str, float] | None
    values: dict[str, object]
    faults: dict[str, str]


class Engine:
    """A decision, its graph and its gates, ready to decide. For one thread: input buffers are reused.

    Args:
        files: the files of a *verified* bundle, path -> bytes; ``decision.json``, ``interface.json`` and
            ``graph.onnx`` are read.

    Raises:
        BundleError: a file is missing, or the graph does not have the declared inputs and outputs.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        for name in ("decision.json", "interface.json", "graph.onnx"):
            if name not in files:
                raise BundleError(f"bundle: '{name}' is missing", found=", ".join(sorted(files)))
        self.decision: Decision = parse_decision(json.loads(files["decision.json"]), "decision.json")
        self.interface: Interface = parse_interface(files["interface.json"])
        self._session = _open_graph(files["graph.onnx"])
        _check_graph(self._session, self.interface)
        _check_interface(self.decision, self.interface)
        self._feeds = {name: _aligned(n) for name, n in self.interface.inputs.items()}
        self._outputs = ["features", "p"] if self.interface.states else ["features"]
        self._rule = Rule(self.decision.rule)
        self._keeper = GateKeeper(
            [g for g in self.decision.gates if self.interface.states or not g.needs_model]
        )

    def decide(self, state: EngineState, given: DecisionInput) -> tuple[Decided, dict[str, float]]:
        """One decision.

        Args:
            state: what the last decision handed on (``Decided.state``), or ``EngineState()`` at first.
            given: windows, context with ages, what people said, identity and instant.

        Returns:
            What was decided, with the next state, and the time each stage took (µs).
        """
        started = perf_counter_ns()
        windows, signal_faults = checked_windows(self.decision, given)
        context, context_faults = checked_context(self.decision, given)
        checked = perf_counter_ns()
        features, p = self._run(windows)
        ran = perf_counter_ns()
        seen = self._see(state, given, features, p, context, signal_faults | context_faults)
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
        stages = (started, checked, ran, proposed, judged, perf_counter_ns())
        names = ("check", "graph", "policy", "gates", "resolve")
        spans = {n: (b - a) / 1e3 for n, a, b in zip(names, stages[:-1], stages[1:], strict=True)}
        return decided, spans

    def _run(self, windows: Mapping[str, Array]) -> tuple[list[float], list[float] | None]:
        for name, buffer in self._feeds.items():
            buffer[0] = windows[name]
        outputs = self._session.run(self._outputs, self._feeds)
        features: list[float] = outputs[0][0].tolist()
        return features, outputs[1][0].tolist() if self.interface.states else None

    def _see(
        self,
        state: EngineState,
        given: DecisionInput,
        features: list[float],
        p: list[float] | None,
        context: Mapping[str, float | str],
        faults: dict[str, str],
    ) -> _Seen:
        named = dict(zip(self.interface.features, features, strict=True))
        history = history_values(self.decision.history, state.history, given.window_end_us / 1e6)
        by_state = None if p is None else dict(zip(self.interface.states, p, strict=True))
        values: dict[str, object] = dict(named)
        values.update((f"context.{k}", v) for k, v in context.items())
        values.update((f"history.{k}", v) for k, v in history.items())
        values.update((f"p.{k}", v) for k, v in (by_state or {}).items())
        return _Seen(named, history, by_state, values, faults)

    def _propose(self, state: EngineState, given: DecisionInput, seen: _Seen, moment: Moment) -> Proposal:
        rule = self._rule.propose(seen.values, state.memory, given.now_us / 1e6)
        answer = accepted_answer(self.decision, moment)
        missing = required_fault(self.decision, seen.faults)
        if given.operator.override is not None:
            chosen = Proposal(given.operator.override, "ordered by a person")
        elif missing:
            chosen = Proposal(None, missing)
        elif answer is not None:
            chosen = Proposal(answer.action, f"answered by {answer.operator}")
        elif seen.p is not None:
            chosen = least_expected_cost(seen.p, self.decision)
        else:
            return rule
        return Proposal(chosen.action, chosen.reason, chosen.expected_costs, rule.memory)

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
                self.decision.history, state.history, seen.features, given.window_end_us / 1e6
            ),
            memory={**proposal.memory, **ruling.memory},
            posture=posture,
            changes=changes_after(state.changes, moment, resolution.command),
            question=resolution.question,
        )
        return Decided(
            features=seen.features,
            history=seen.history,
            p=seen.p,
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
        )

    def _upload(self, seed: str, seen: _Seen, resolution: Resolution, verify: Draw) -> Draw:
        """Whether the raw window leaves, with the probability it had (value-aware when ``selected``)."""
        policy = self.decision.needs.upload
        if policy == "raw":
            return draw(seed, "upload", 1.0)
        if policy != "selected":
            return draw(seed, "upload", 0.0)
        telling = bool(seen.faults) or resolution.question is not None or verify.hit
        return draw(seed, "upload", 1.0 if telling else SELECTED_SHARE)


def _aligned(n: int) -> Array:
    """An input buffer ``[1, n]`` on a cache line.

    Vectorised sums start at an aligned address: the same numbers at another alignment are added in
    another order and differ in the last bit. Every decision and every replay runs on such buffers.
    """
    raw = np.empty(4 * n + _LINE, dtype=np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + 4 * n].view(np.float32)[np.newaxis]


def _open_graph(graph: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BundleError("graph.onnx: onnxruntime cannot open it", found=str(error)[:200]) from error


def _check_graph(session: ort.InferenceSession, interface: Interface) -> None:
    inputs = {i.name: i.shape[-1] for i in session.get_inputs()}
    if inputs != dict(interface.inputs):
        raise BundleError("graph.onnx: inputs", expected=str(dict(interface.inputs)), found=str(inputs))
    outputs = {o.name: o.shape[-1] for o in session.get_outputs()}
    expected = {"features": len(interface.features)}
    if interface.states:
        expected["p"] = len(interface.states)
    if outputs != expected:
        raise BundleError("graph.onnx: outputs", expected=str(expected), found=str(outputs))


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
