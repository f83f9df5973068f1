"""Candidates side by side on the same rows, none of which they learned from.

Those that are trained here are judged out of fold: each row by heads that had not seen its subject or time.
Those of a registry have seen every row that was known when they were trained: they are judged on later rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.assemble import columns_of
from aiotkit.lab.examples import Examples
from aiotkit.lab.recipe import recipe
from aiotkit.lab.train import train
from aiotkit.release.bench import ONE, bench
from aiotkit.release.export import export
from aiotkit.release.in_force import followed, head_decides, learned_until, rule_actions, without_head
from aiotkit.release.registry import Registry
from aiotkit.release.store import tracking_uri

if TYPE_CHECKING:
    from aiotkit.lab.own_words import OwnWords

RULE = "rule"
Names = NDArray[np.object_]
#: (stage in words, share of the whole that is done)
Tell = Callable[[str, float], None]


@dataclass(frozen=True)
class Rival:
    """A candidate: what it believed and would have done on each row, and the graph a device would run."""

    name: str
    p: NDArray[Any]
    actions: Names
    graph: bytes


@dataclass(frozen=True)
class Rivals:
    """Candidates on the same rows.

    Attributes:
        rows: ``subject``, ``at_us``, ``state`` and more, as in ``Examples``.
        x: ``[rows, columns]``, for slices.
        columns: names of ``x``'s columns.
        rule: what the written rule would have done.
        listed: the candidates, in the order they were named.
        words: on which rows they were judged.
    """

    rows: pd.DataFrame
    x: NDArray[np.float32]
    columns: tuple[str, ...]
    rule: Names
    listed: tuple[Rival, ...]
    words: str

    @property
    def policies(self) -> dict[str, Names]:
        """Name -> actions, the rule among them, for ``judge.compare``."""
        return {RULE: self.rule} | {r.name: r.actions for r in self.listed}

    @property
    def most_contested(self) -> str:
        """The subject on which the first two candidates differ most often."""
        differ = self.listed[0].actions != self.listed[1].actions
        counts = pd.Series(differ).groupby(self.rows["subject"].to_numpy()).sum()
        return str(counts.idxmax())


def train_rivals(
    examples: Examples,
    decision: Decision,
    wanted: Sequence[str],
    *,
    seed: int,
    tell: Tell | None = None,
    words: OwnWords | None = None,
) -> Rivals:
    """Train a candidate for each family and recipe.

    Args:
        examples: with the features of every recipe.
        decision: what is decided.
        wanted: ``family`` or ``family recipe``, such as ``lda plain``; the default recipe is all columns.
        seed: of training.
        tell: told what is going on.
        words: statistics of one's own among the features; see ``lab.own_words``.

    Raises:
        DataError: fewer than two are named, or one cannot be trained.
    """
    _at_least_two(wanted)
    found: list[Rival] = []
    known = examples.known()
    for i, name in enumerate(wanted):
        family, _, kind = name.strip().partition(" ")
        columns = columns_of(decision, recipe(decision, kind, words)) if kind else examples.columns
        part = examples.with_columns(columns)
        training = train(part, decision, families=(family,), seed=seed, progress=_part(tell, i, len(wanted)))
        if not training.oof_rows["key"].equals(known.rows["key"]):
            raise DataError(f"candidate '{name}': judged on other rows than were given")
        made = export(decision, training.trained, words=words)
        instead = without_head(known, made.interface.reads, decision, training.oof_novelty)
        actions = followed(training.actions(decision), instead)
        found.append(Rival(name.strip(), training.oof_p, actions, made.graph))
    _part(tell, len(wanted), len(wanted))("done", 0.0)
    judged = f"{len(known):,} rows, each judged by heads that had not seen its {decision.resample}"
    return Rivals(known.rows, known.x, known.columns, rule_actions(known, decision), tuple(found), judged)


def _part(tell: Tell | None, i: int, n: int) -> Tell:
    return lambda stage, share: None if tell is None else tell(stage, (i + min(share, 0.999)) / n)


def registered_rivals(
    store: str, examples: Examples, decision: Decision, versions: Sequence[int] = ()
) -> Rivals:
    """Candidates of a registry, on rows later than all that any of them learned from.

    Args:
        store: the MLflow store: a folder, or its tracking URI.
        examples: with the columns they read.
        decision: what is decided.
        versions: their numbers; by default the two newest.

    Raises:
        DataError: fewer than two are named or registered, or no row is late enough.
        StorageError: the store cannot be read.
    """
    registry = Registry(tracking_uri(store))
    numbers = list(versions) or [v.number for v in registry.candidates(decision.id)[:2]]
    _at_least_two(numbers)
    bundles = {n: _files(registry, decision.id, n) for n in numbers}
    after = max(_learned_until(files, n) for n, files in bundles.items())
    known = examples.known()
    late = known.take((known.rows["at_us"] > after).to_numpy(dtype=bool))
    since = pd.Timestamp(after, unit="us", tz="UTC")
    if not len(late):
        raise DataError(
            "no row with a known state is later than what these candidates learned from",
            expected=f"rows after {since:%Y-%m-%d %H:%M} UTC",
            found=f"{len(known):,} rows until then",
            do="Wait for outcomes; or read the held-out figures in each candidate's own report.",
        )
    listed = [_judged(f"version {n}", files, late, decision) for n, files in bundles.items()]
    words = f"{len(late):,} rows after {since:%Y-%m-%d %H:%M} UTC, later than any of them learned from"
    return Rivals(late.rows, late.x, late.columns, rule_actions(late, decision), tuple(listed), words)


def _at_least_two(wanted: Sequence[object]) -> None:
    if len(set(wanted)) < 2 or len(set(wanted)) < len(wanted):
        raise DataError("candidates", expected="at least two, each once", found=str(list(wanted)))


def _files(registry: Registry, decision_id: str, number: int) -> Mapping[str, bytes]:
    bundle, _ = registry.fetch(registry.version(decision_id, number))
    return read_unsigned(bundle)[0].files


def _learned_until(files: Mapping[str, bytes], number: int) -> int:
    """The last instant of what a candidate was trained on, by its model card."""
    found = learned_until(files)
    if found is None:
        raise DataError(
            f"version {number} does not say what it learned from",
            expected="model.learned_from in its card.json",
            do="Compare candidates that aiotkit run retrain made.",
        )
    return found


def _judged(name: str, files: Mapping[str, bytes], rows: Examples, decision: Decision) -> Rival:
    """What a bundle's head says of rows, at the costs declared now and its own margin."""
    p, actions = head_decides(files, rows, decision, name, written=decision)
    return Rival(name, p, actions, files["graph.onnx"])


def latency_table(rivals: Rivals, *, runs: int = 200) -> pd.DataFrame:
    """How long each candidate's whole graph takes here, one row and one thread.

    Columns ``variant``, ``p50_us``, ``p99_us``, ``size_bytes``, as ``latency_bars`` draws them.
    """
    rows = []
    for rival in rivals.listed:
        whole = bench(rival.graph, runs=runs, threads=(ONE,))
        times = whole["threads"][ONE]["whole"]
        rows.append((rival.name, times["p50_us"], times["p99_us"], whole["size_bytes"]))
    return pd.DataFrame(rows, columns=["variant", "p50_us", "p99_us", "size_bytes"])


def differences(rivals: Rivals) -> pd.DataFrame:
    """The rows on which the first two candidates do different things: what they do, believe, and what was so.

    Columns ``subject``, ``at``, ``state``, an action for each candidate, and ``apart``: half the sum of the
    absolute differences of their probabilities (total variation); largest first.
    """
    a, b = rivals.listed[0], rivals.listed[1]
    apart = np.abs(a.p - b.p).sum(axis=1) / 2
    at = pd.to_datetime(rivals.rows["at_us"], unit="us", utc=True)
    columns = {"subject": rivals.rows["subject"], "at": at, "state": rivals.rows["state"]}
    frame = pd.DataFrame(columns | {a.name: a.actions, b.name: b.actions, "apart": apart})
    differ: pd.DataFrame = frame[a.actions != b.actions]
    return differ.sort_values("apart", ascending=False, ignore_index=True)
