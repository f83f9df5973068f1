"""A head for the time when only one state has ever been seen: it says that state, and how unlike it a row is.

Nothing can be told apart yet, so no family can be trained. But what is unlike everything so far can be
noticed: with this head the engine's gate on novelty asks a person instead of going on as if nothing were.

Beside the distance over all columns (``lab.novelty``) it has one over those that the written rule reads.
Whoever wrote the rule held them to be telling, and in a distance over hundreds of columns the one that moves
with an unknown state drowns among those that move with the weather.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.conditions import fields
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.calibrate import no_calibration
from aiotkit.lab.examples import Examples
from aiotkit.lab.heads.base import Floats, Ints, Rows, Windows, inner_folds
from aiotkit.lab.heads.whole import WholeHead
from aiotkit.lab.novelty import BETWEEN, Distance, Novelty, learn_novelty, whole_distance
from aiotkit.lab.onnx_graph import Graph
from aiotkit.lab.prepare import Preparation, informative
from aiotkit.lab.trained import Trained, probes

FAMILY = "lookout"
#: fewest labelled rows
FEWEST = 30
#: contiguous parts on whose rows the rule's distance is measured, each seen from the others
PARTS = 8


@dataclass(frozen=True)
class _OneState:
    """Always the one state; a ``heads.base.Fitted``."""

    preparation: Preparation
    settings: Mapping[str, float] = field(default_factory=dict)
    signals: tuple[str, ...] = ()

    def logits(self, x: NDArray[np.float32], windows: Windows) -> Floats:  # noqa: ARG002
        """``[n, 1]`` zeros."""
        return np.zeros((len(x), 1))

    def add_to(self, graph: Graph, x: str, windows: Mapping[str, str]) -> str:  # noqa: ARG002
        """A zero a row: of prepared values, which are never NaN."""
        first = graph.columns(self.preparation.add_to(graph, x), np.array([0]))
        return graph.op("Mul", first, graph.number(0.0))


def keep_a_lookout(examples: Examples, decision: Decision, *, seed: int) -> Trained:
    """A head that knows one state.

    Args:
        examples: whose labelled rows all have one state.
        decision: that declares it, and others.
        seed: is noted; nothing is random.

    Raises:
        DataError: fewer than ``FEWEST`` labelled rows, several states, or no column varies.
    """
    given = examples.labelled()
    seen = sorted(set(given.rows["state"].astype(str)))
    if len(given) < FEWEST or len(seen) != 1:
        raise DataError(
            "a lookout", expected=f"at least {FEWEST} labelled rows of one state",
            found=f"{len(given)} rows of {', '.join(seen) or 'none'}",
        )  # fmt: skip
    keep, notes = informative(given.x, given.columns)
    given = given.with_columns([given.columns[i] for i in keep])
    order = np.argsort(given.rows["at_us"].to_numpy(), kind="stable")
    n, states = len(given), tuple(decision.states)
    novelty = _learn(Rows(given.x[order], np.zeros(n, dtype=np.int64), np.ones(n)), _telling(given, decision))
    present = np.array([states.index(seen[0])], dtype=np.int64)
    whole = WholeHead(_OneState(novelty.preparation), no_calibration(1), present, len(states), novelty)
    probe_x, _ = probes(given, ())
    head = whole.to_onnx(len(given.columns), {})
    whole.check_parity(head, probe_x, {}, FAMILY)
    return Trained(
        decision_digest=decision.digest,
        family=FAMILY,
        features=tuple(c for c in given.columns if not c.startswith(("history.", "context."))),
        columns=given.columns,
        signals=(),
        states=states,
        head=head,
        probe_x=probe_x,
        probe_p=whole.p(probe_x, {}),
        table=[{"family": FAMILY, "chosen": True, "refused": ""}],
        figures={"rows": float(n), "margin": 0.0},
        seed=seed,
        notes=(*notes, f"only '{seen[0]}' has been seen: nothing is told apart, the unknown is noticed"),
    )


def _telling(examples: Examples, decision: Decision) -> Ints:
    """Positions of the columns that the written rule reads."""
    read = {field for branch in decision.rule if branch.when is not None for field in fields(branch.when)}
    return np.flatnonzero([column in read for column in examples.columns]).astype(np.int64)


def _learn(rows: Rows, telling: Ints) -> Novelty:
    """Novelty over all columns and, where the rule reads any, over the telling ones."""
    novelty = learn_novelty(rows)
    if not len(telling):
        return novelty
    z = novelty.preparation.apply(rows.x)
    kept = np.flatnonzero(np.isin(novelty.preparation.keep, telling))
    found = np.zeros(len(z))
    for train, test in inner_folds(rows, PARTS):
        found[test] = _few(z[train], kept).raw(z[test])
    distance = _few(z, kept)
    limit = max(float(np.quantile(d, BETWEEN)) for d in (found, distance.raw(z)))
    return Novelty(novelty.preparation, (*novelty.distances, replace(distance, limit=max(limit, 1e-9))))


def _few(z: Floats, kept: Ints) -> Distance:
    """The distance to the mean in some of the columns alone."""
    alone = whole_distance(z[:, kept])
    turn = np.zeros((z.shape[1], alone.turn.shape[1]))
    turn[kept] = alone.turn
    return replace(alone, turn=turn)
