"""The recorded rig through the whole circle: rounds in strict time order, with devices, desk and lake.

In each round four device processes decide about their parts' next cycles. At its end journals are collected,
the states noted by then are imported, and the desk learns from them: a head is exported, built into a bundle,
signed and installed on the same devices, which decide the next round with it. A state is noted after the
fact: what is decided about it at first, nobody could have learned.

The desk learns after a short first round and then whenever the record has grown by ``GROWTH``.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from aiotkit.bundle.unsigned import Unsigned, read_unsigned
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.conditions import Memory
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError
from aiotkit.core.gates import MODEL_KNOWS, Verdict
from aiotkit.core.policy import ASK, Rule
from aiotkit.edge.config import DEVICE_FILE
from aiotkit.fleet.collector import Collector
from aiotkit.lab.assemble import assemble
from aiotkit.lab.outcomes import import_outcomes
from aiotkit.lab.recipe import recipe
from aiotkit.lake.assets import Assets, Assignment
from aiotkit.lake.lake import Lake
from aiotkit.loop.demo import Progress, install
from aiotkit.loop.rig import CYCLE_S, START_US, Rig
from aiotkit.loop.rig_devices import device, packets_file, run_devices, write_packets
from aiotkit.loop.rig_learning import RECIPE, RULE, cycle_numbers, learn, noted_states, speaks_against
from aiotkit.loop.setting import Keys, Place, commission
from aiotkit.release.bundle import build_bundle
from aiotkit.release.export import export
from aiotkit.release.in_force import champion_actions

FIRST_ROUND, GROWTH = 180, 1.6
FAMILIES, FOLDS = ("lda",), 3
WORKERS = 2
#: A new state may begin right after a new bundle: that is the rig's doing, and what is to be seen here.
#: All devices share one computer, as in ``loop.setting``.
PROBATION = {"max_late_share": 0.5, "max_novel_share": 1.0}


@dataclass(frozen=True)
class Lesson:
    """What the desk made of a part's record at ``as_of_us``. ``refused``: why nothing was released."""

    as_of_us: int = 0
    labelled: int = 0
    family: str = ""
    made: Unsigned | None = None
    parity: Mapping[str, float] = field(default_factory=dict)
    refused: str = ""


@dataclass
class Rounds:
    """What the rounds left.

    ``cuts``: first cycle of each round, and the end; ``lessons``: part -> the lesson before each round;
    ``cycles``: part -> the frame of cycles (``loop.rig_learning``) with the ``bundle``
    that decided and what the written ``rule`` would have proposed.
    """

    place: Place
    cuts: list[int]
    lessons: dict[str, list[Lesson]] = field(default_factory=dict)
    cycles: dict[str, pd.DataFrame] = field(default_factory=dict)
    bundles: list[Path] = field(default_factory=list)

    def in_force(self, part: str) -> Lesson:
        """The newest lesson that was released."""
        return next(one for one in reversed(self.lessons[part]) if one.made is not None)


def cuts_of(cycles: int) -> list[int]:
    """Where rounds begin, and the end.

    >>> cuts_of(600)
    [0, 180, 288, 460, 600]
    """
    out = [0, min(FIRST_ROUND, max(1, cycles * 2 // 3))]
    while (following := max(out[-1] + 1, int(out[-1] * GROWTH))) < cycles / 1.1:
        out.append(following)
    return [*out, cycles]


def run_rounds(
    place: Place,
    keys: Keys,
    rig: Rig,
    first: Mapping[str, tuple[Decision, Path]],
    progress: Progress,
) -> Rounds:
    """The whole record, round by round.

    Args:
        place: an empty folder of its own.
        keys: that devices trust.
        rig: the record.
        first: part -> its decision and the signed bundle without a model that the first round runs.
        progress: told what is going on.

    Raises:
        AiotkitError: a device ended badly, or a decision is missing.
    """
    for folder in (place.uplink, place.bundles, place.root / "devices"):
        folder.mkdir(parents=True)
    lake, rounds = Lake.create(place.lake), Rounds(place, cuts_of(rig.cycles))
    decisions = {part: decision for part, (decision, _) in first.items()}
    states = {part: _set_up(rounds, keys, lake, part, *given) for part, given in first.items()}
    context = multiprocessing.get_context("spawn")  # a fork would copy open sessions and their threads
    with ProcessPoolExecutor(WORKERS, mp_context=context) as pool:
        for number, (lo, hi) in enumerate(zip(rounds.cuts, rounds.cuts[1:], strict=False)):
            share = lo / rig.cycles
            if number:
                progress(f"round {number + 1} of {len(rounds.cuts) - 1}: learn from {lo} cycles", share)
                _teach(pool, rounds, keys, decisions, states, number)
            progress(f"round {number + 1} of {len(rounds.cuts) - 1}: cycles {lo} to {hi}", share)
            for part, decision in decisions.items():
                write_packets(place, part, rig, decision, range(lo, hi))
            run_devices(place)
            Collector(lake, place.uplink, keys.collector).collect_once()
            for part, decision in decisions.items():
                noted = noted_states(rig, part, range(lo, hi))
                import_outcomes(lake, noted, decision, imported_us=_end_us(hi))
    for part, decision in decisions.items():
        rounds.cycles[part] = _cycles(lake, rig, rounds, part, decision)
    return rounds


def _end_us(cycle: int) -> int:
    return START_US + cycle * CYCLE_S * 1_000_000


def _set_up(rounds: Rounds, keys: Keys, lake: Lake, part: str, decision: Decision, bundle: Path) -> Path:
    """A commissioned device with its first bundle."""
    place = rounds.place
    source = f"file:{packets_file(place, part)}"
    state = commission(place, keys.trust(), decision, device(part), source=source)
    config = json.loads((state / DEVICE_FILE).read_bytes())
    (state / DEVICE_FILE).write_bytes(canonical_bytes(config | {"probation": PROBATION}))
    rounds.bundles.append(bundle)
    install([state], bundle)
    watched = Assignment(device=device(part), subject=part, from_us=START_US)
    Assets(lake).assign(watched, recorded_us=START_US)
    rounds.lessons[part] = [Lesson(family=RULE, made=read_unsigned(bundle.read_bytes())[0])]
    return state


def _teach(
    pool: ProcessPoolExecutor,
    rounds: Rounds,
    keys: Keys,
    decisions: Mapping[str, Decision],
    states: Mapping[str, Path],
    number: int,
) -> None:
    """Learn every part, and install what came of it."""
    as_of_us = _end_us(rounds.cuts[number])
    jobs = {
        part: pool.submit(
            lesson, rounds.place.lake, decision, as_of_us, rounds.in_force(part), counter=number + 1
        )
        for part, decision in decisions.items()
    }
    fresh: list[tuple[Path, Path]] = []
    for part, job in jobs.items():
        found = job.result()
        rounds.lessons[part].append(found)
        if found.made is not None:
            path = rounds.place.bundles / f"{decisions[part].id}-{number + 1}.aiot"
            path.write_bytes(found.made.archive(keys.release))
            rounds.bundles.append(path)
            fresh.append((states[part], path))
    with ThreadPoolExecutor(WORKERS) as hands:
        list(hands.map(lambda one: install([one[0]], one[1]), fresh))


def lesson(lake: Path, decision: Decision, as_of_us: int, in_force: Lesson, *, counter: int) -> Lesson:
    """Learn from what a lake knew at an instant, and build the bundle; in a process of its own.

    Args:
        lake: its folder.
        decision: what is learned.
        as_of_us: what came later does not count.
        in_force: what the devices run, which the candidate is compared with.
        counter: release counter of the bundle.
    """
    labelled, family = 0, ""
    try:
        names = recipe(decision, RECIPE)
        examples = assemble(Lake.open(lake), decision, names=names, as_of_us=as_of_us, windows=True)
        labelled = len(examples.labelled())
        learned = learn(examples, decision, FAMILIES, folds=FOLDS, seed=0)
        family = learned.trained.family
        assert in_force.made is not None  # the first bundle at least
        now = champion_actions(in_force.made.files, examples.known(), decision)
        refused = speaks_against(learned, examples, now, in_force.as_of_us, decision)
        if refused:
            return Lesson(as_of_us, labelled, family, refused=refused)
        made = export(decision, learned.trained)
        bundle = build_bundle(decision, release_counter=counter, model=made, reference=examples.labelled())
    except AiotkitError as error:
        return Lesson(as_of_us, labelled, family, refused=str(error))
    parity = {"label_flips": float(made.parity["label_flips"]), "max_abs": float(made.parity["max_abs"])}
    return Lesson(as_of_us, labelled, family, bundle, parity)


def _cycles(lake: Lake, rig: Rig, rounds: Rounds, part: str, decision: Decision) -> pd.DataFrame:
    """The frame of cycles as the devices decided them."""
    where = [("type", "=", "DECISION"), ("decision_id", "=", decision.id)]
    read = lake.read("decisions", columns=["payload"], where=where).to_pandas()["payload"]
    said = sorted((json.loads(one) for one in read), key=lambda one: int(one["in"]["window_end_us"]))
    at_us = pd.Series([int(one["in"]["window_end_us"]) for one in said], dtype=np.int64)
    cycle = cycle_numbers(at_us)
    if cycle.tolist() != list(range(rig.cycles)):
        raise AiotkitError(
            f"device {device(part)}", expected=f"a decision about each of {rig.cycles} cycles",
            found=f"{len(said)} decisions about {len(set(cycle.tolist()))}", do="See run.log in its folder.",
        )  # fmt: skip
    family = {one.made.digest: one.family for one in rounds.lessons[part] if one.made is not None}
    return pd.DataFrame(
        {
            "cycle": cycle,
            "at_us": at_us,
            "state": rig.states[part],
            "label": [_label(one["out"]["p"]) for one in said],
            "novelty": [_number(one["out"].get("novelty")) for one in said],
            "action": [_action(one["out"], decision) for one in said],
            "rule": _rule_actions(said, decision),
            "novel": [_novel(one["out"]["verdicts"]) for one in said],
            "round": np.searchsorted(rounds.cuts, cycle, side="right") - 1,
            "family": [family.get(one["bundle"], RULE) for one in said],
            "bundle": [one["bundle"] for one in said],
        }
    )


def _rule_actions(said: Sequence[Mapping[str, Any]], decision: Decision) -> list[str]:
    """What the written rule would have proposed on the features that the devices recorded."""
    rule, out = Rule(decision.rule), []
    memory: Memory = {}
    for one in said:
        values = {name: float(value) for name, value in one["out"]["features"].items()}
        proposal = rule.propose(values, memory, int(one["in"]["now_us"]) / 1e6)
        memory = proposal.memory
        out.append(proposal.action or decision.recovery)
    return out


def _label(p: Mapping[str, Any] | None) -> str | None:
    """The likeliest state; None where no model decided."""
    return None if not p else max(p, key=lambda state: float(p[state]))


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _action(out: Mapping[str, Any], decision: Decision) -> str:
    """What was proposed to people: an action, or that they be asked."""
    if out["verdict"] == Verdict.ASK.name or out["proposed"] == ASK:
        return ASK
    held = out["verdict"] != Verdict.ALLOW.name or out["proposed"] is None
    return decision.recovery if held else str(out["proposed"])


def _novel(verdicts: Sequence[Sequence[str]]) -> bool:
    """Whether the engine's own gate found the window unlike anything in training."""
    return any(gate == MODEL_KNOWS and verdict == Verdict.ASK.name for gate, verdict, _ in verdicts)
