"""How well the pipeline tells the states of a recorded hydraulic rig, under folds that are blocks of time.

For each of four parts (cooler, valve, pump, accumulator): the record goes through the code a user's files go
through, families of heads compete as in ``aiotkit run retrain``, and the family that training chooses is
judged on rows its heads have not seen. Folds are 10, 5 and 20 contiguous blocks; cycles are ordered by
experiment, and shuffled folds would leak time. Money is what the actions would have cost per day of running,
beside the best constant action and the written rule on the same rows. Then strict time order: each of ten
blocks by what was learned before it, with what the novelty gate did when a state appeared for the first time.

The data are not part of this project: ``--data DIR`` is the folder of the UCI set "Condition monitoring of
hydraulic systems". Without it nothing is measured, and an earlier result stays as it is.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
os.environ.update(dict.fromkeys(THREADS, "1"))  # before numpy is imported

from common import arguments, progress, report  # noqa: E402

from aiotkit.core.decision import Decision  # noqa: E402
from aiotkit.lab.examples import Examples  # noqa: E402
from aiotkit.lab.train import Training, train  # noqa: E402
from aiotkit.loop.rig import PARTS, read_rig, rig_decision  # noqa: E402
from aiotkit.loop.rig_learning import (  # noqa: E402
    RECIPE,
    cycles_of,
    fared,
    first_seen,
    in_time_order,
    money_per_day,
    rig_examples,
)
from aiotkit.release.in_force import rule_actions  # noqa: E402

BLOCKS = (10, 5, 20)
#: boosted trees are left to ``--families``: they take longer than all others together, and win nowhere here
FAMILIES = "lda,logistic,forest,mlp"
TARGETS = {"cooler": 0.99, "valve": 0.995, "pump": 0.99, "accumulator": 0.92}
#: linear discriminant analysis on means and standard deviations of six parts of a cycle, 10 blocks
ANCHOR = {"cooler": 0.9946, "valve": 1.0, "pump": 0.996, "accumulator": 0.919}


@dataclass
class Found:
    """What goes into the result file."""

    figures: dict[str, float] = field(default_factory=dict)
    peers: dict[str, Any] = field(default_factory=dict)
    targets: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)


def by_blocks(part: str, examples: Examples, decision: Decision, training: Training, n: int) -> Found:
    """Out-of-fold labels and money of the family that training chose."""
    found, name = Found(), f"{part}_{n}"
    rows = training.oof_rows
    cycles = cycles_of(rows, training.oof_p, training.oof_novelty, decision, training.oof_margins)
    fare = fared(cycles, decision)
    found.figures[f"{name}_accuracy"] = fare["accuracy"]
    if n == BLOCKS[0]:
        found.targets[f"{name}_accuracy"] = f"≥ {TARGETS[part]}"
        found.figures[f"{name}_over_constant"] = fare["money"] / fare["best_constant"]
        found.targets[f"{name}_over_constant"] = "< 1"
        rule = money_per_day(cycles, decision, rule_actions(examples.known(), decision))
        found.peers |= {f"{name} money": fare["money"], f"{name} money of the rule": rule}
        found.peers |= {
            f"{name} money of the {k.replace('_', ' ')}": fare[k] for k in ("best_constant", "oracle")
        }
        found.peers[f"{name} asked"] = fare["asked"] / fare["decided"]
    print(f"{part}, {n} blocks: {training.trained.family}, accuracy {fare['accuracy']:.4f}", flush=True)
    for row in training.trained.table:
        said = "refused: " + row["refused"] if row["refused"] else float(row["accuracy"])
        found.peers[f"{name} {row['family']}{' (chosen)' if row['chosen'] else ''}"] = said
    return found


def forwards(part: str, examples: Examples, decision: Decision, families: Sequence[str], seed: int) -> Found:
    """Strict time order, ten blocks."""
    found = Found()
    cycles = in_time_order(examples, decision, families, blocks=BLOCKS[0], folds=5, seed=seed)
    fare = fared(cycles, decision)
    for name in ("accuracy", "accuracy_known"):
        found.figures[f"{part}_forward_{name}"] = fare[name]
    found.figures[f"{part}_forward_asked"] = fare["asked"] / fare["decided"]
    found.figures[f"{part}_forward_over_constant"] = fare["money"] / fare["best_constant"]
    print(f"{part}, strict time order: accuracy {fare['accuracy']:.4f}", flush=True)
    for seen in first_seen(cycles):
        found.notes[f"{part}, '{seen['state']}' from cycle {seen['cycle']}"] = first_words(seen)
    return found


def first_words(seen: Mapping[str, Any]) -> str:
    """What was done at a state's first cycles."""
    if seen["novel_share"] is None:
        return f"by the written rule, before anything was learned: {seen['actions']}"
    wrong = ", ".join(f"{n} as '{label}'" for label, n in seen["misjudged"].items())
    return (
        f"by {seen['by']}; of its first {seen['first']} cycles {seen['novel_share']:.0%} novel, "
        f"{seen['asked_share']:.0%} asked{', misjudged ' + wrong if wrong else ''}; of all "
        f"{seen['unlearned']} before it could be learned {seen['unlearned_asked_share']:.0%} asked"
    )


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    if options.data is None:
        print("hydraulic: not run, it needs --data DIR (the UCI hydraulic set); an earlier result stays")
        return
    families = [name.strip() for name in options.families.split(",")]
    found = Found()
    decisions = {part: rig_decision(part) for part in options.parts.split(",")}
    rig = read_rig(options.data, {signal for d in decisions.values() for signal in d.signals})
    for part, decision in decisions.items():
        progress(f"{part}: examples")
        examples = rig_examples(rig, part, decision, options.recipe)
        parts = []
        for n in BLOCKS[: 1 if options.quick else None]:
            progress(f"{part}: {n} blocks")
            training = train(examples, decision, families=families, folds=n, seed=options.seed, audited=False)
            parts.append(by_blocks(part, examples, decision, training, n))
        if not options.quick:
            progress(f"{part}: strict time order")
            parts.append(forwards(part, examples, decision, families, options.seed))
        for one in parts:
            for name in ("figures", "peers", "targets", "notes"):
                getattr(found, name).update(getattr(one, name))
        found.peers[f"{part}_{BLOCKS[0]} anchor"] = ANCHOR[part]
    progress("")
    found.notes |= {
        "method": f"{rig.cycles:,} cycles; recipe {options.recipe} of all sensors; families "
        f"{options.families}; folds are contiguous blocks, purged by the horizon; settings by inner "
        "validation on contiguous parts of the training blocks; accuracy of the chosen family's "
        "out-of-fold labels",
        "over_constant": "money of least expected cost (asking included) over the best constant action's",
        "forward": "each of ten blocks but the first by what was learned from those before it; cycles that "
        "were asked about counted as their likeliest label; accuracy_known: without those called novel",
        "anchor": "LDA on means and standard deviations of six parts of a cycle, same folds, made elsewhere",
    }
    report(
        "hydraulic",
        found.figures,
        peers=found.peers,
        targets=found.targets,
        notes=found.notes,
        options=options,
    )


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--data", type=Path, help="the data set's folder")
    parser.add_argument("--families", default=FAMILIES, help=f"heads that compete (default {FAMILIES})")
    parser.add_argument("--recipe", default=RECIPE, help=f"features (default {RECIPE})")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts")
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
