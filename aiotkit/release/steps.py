"""The stages of retraining and release, each one function: what a notebook calls, and what runs in process.

Each takes plain values and paths, reads only what it is given, and writes everything into ``out``. The
figures it is remembered by go into ``figures.json``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.features import own_word
from aiotkit.lab.assemble import assemble as assemble_examples
from aiotkit.lab.decision_file import read_decision
from aiotkit.lab.examples import Examples
from aiotkit.lab.own_words import OwnWords, check_words
from aiotkit.lab.own_words import own_words as own_words_of
from aiotkit.lab.recipe import recipe as names_of
from aiotkit.lab.thresholds import thresholds, tuned_elsewhere
from aiotkit.lab.train import DEFAULT, Training
from aiotkit.lab.train import train as train_heads
from aiotkit.lab.trained import Trained
from aiotkit.lake.lake import Lake
from aiotkit.release import kept
from aiotkit.release.bundle import build_bundle
from aiotkit.release.candidate_page import candidate_page
from aiotkit.release.choose import Measured, choose
from aiotkit.release.choose import measure as measure_variants
from aiotkit.release.evidence import Evidence
from aiotkit.release.export import Exported
from aiotkit.release.export import export as export_graph
from aiotkit.release.held_out import CHAMPION, RULE, THRESHOLD, HeldOut, slices_of
from aiotkit.release.in_force import champion_actions, learned_until, rule_actions, without_head
from aiotkit.release.promote import Candidate, judge
from aiotkit.release.quantize import Variant, calibration_of, variants
from aiotkit.release.registry import BUNDLE_FILE, EVIDENCE_FILE, REPORT_FILE
from aiotkit.release.stages import FIGURES, seal, write_figures

__all__ = ["assemble", "bench", "export", "gate", "quantize", "seal", "train"]

Where = str | Path
#: name of the figure that says what was known
AS_OF = "as_of_us"


def assemble(
    *,
    decision: Where,
    lake: str,
    as_of_us: int,
    recipe: str,
    also: str,
    windows: bool,
    out: Where,
    own_words: Where = "",
) -> Examples:
    """10: examples out of the lake.

    Args:
        decision: the decision file.
        lake: folder or URI of the lake.
        as_of_us: what was known then (µs UTC).
        recipe: of features; see ``lab.recipe``.
        also: further features, with commas (those that the champion reads).
        windows: keep raw windows too.
        out: folder to write into.
        own_words: the Python file that defines words of one's own; empty = there are none.

    Raises:
        DataError: the file breaks a promise (``lab.own_words``), or nothing asks for one of its words.
    """
    wanted, words = read_decision(Path(decision)), _words(own_words)
    names = sorted({*names_of(wanted, recipe, words), *filter(None, also.split(","))})
    if words is not None:
        _check_used(words, wanted, names)
    found = assemble_examples(
        Lake.open(lake), wanted, names=names, as_of_us=as_of_us, windows=windows, words=words
    )
    found.save(_folder(out))
    labelled = found.labelled().rows["state"]
    figures = {"rows": len(found), "labelled": len(labelled), "columns": len(found.columns)}
    counts = {f"state.{name}": int((labelled == name).sum()) for name in wanted.states}
    write_figures(out, figures | counts | {AS_OF: as_of_us})
    return found


def train(*, decision: Where, examples: Where, families: str, folds: int, seed: int, out: Where) -> Training:
    """20: heads compete; the one that costs least on rows it has not seen is kept, and the leak audit.

    Args:
        decision: the decision file.
        examples: folder of stage 10.
        families: names with commas; ``auto`` = the usual ones.
        folds: parts the rows are held out in.
        seed: of every random number.
        out: folder to write into.
    """
    wanted, given = read_decision(Path(decision)), Examples.load(Path(examples))
    names = DEFAULT if families == "auto" else tuple(name.strip() for name in families.split(","))
    rule = rule_actions(given.known(), wanted).tolist()
    found = train_heads(given, wanted, families=names, folds=folds, seed=seed, baseline=rule)
    out = _folder(out)
    found.trained.save(out)
    kept.save_audit(found.audit, out)
    novelty, margins = found.oof_novelty, found.oof_margins
    kept.save_arrays(out, p=found.oof_p, novelty=novelty, fold=found.oof_fold, margins=margins)
    write_figures(out, found.trained.figures)
    return found


def export(
    *, decision: Where, examples: Where, trained: Where, out: Where, own_words: Where = ""
) -> Exported:
    """30: one graph from windows to probabilities, refused unless it says what the library says.

    Args:
        decision: the decision file.
        examples: folder of stage 10.
        trained: folder of stage 20.
        out: folder to write into.
        own_words: as in stage 10.

    Raises:
        DataError: the file of own words is not the one that the head was trained with.
    """
    windows = {name: np.asarray(w[:256]) for name, w in Examples.load(Path(examples)).windows.items()}
    wanted, head = read_decision(Path(decision)), Trained.load(Path(trained))
    found = export_graph(wanted, head, windows or None, _words(own_words))
    kept.save_exported(found, _folder(out))
    parity = {name: found.parity[name] for name in ("label_flips", "max_abs", "n")}
    write_figures(out, {"bytes": len(found.graph), "head_bytes": len(found.head), **parity})
    return found


def quantize(*, exported: Where, examples: Where, seed: int, out: Where) -> list[Variant]:
    """40: the head in integers, in three ways, where that is possible.

    Args:
        exported: folder of stage 30.
        examples: folder of stage 10, for calibration.
        seed: of the rows that are drawn.
        out: folder to write into.
    """
    graph, given = kept.load_exported(Path(exported)), Examples.load(Path(examples))
    found = variants(graph, calibration_of(graph, given, seed=seed))
    kept.save_variants(found, _folder(out))
    write_figures(out, {f"bytes.{i}": len(v.graph) for i, v in enumerate(found) if v.graph is not None})
    return found


def bench(*, decision: Where, examples: Where, quantized: Where, runs: int, out: Where) -> list[Measured]:
    """50: what each variant changes, and how fast and small it is on this computer.

    Args:
        decision: the decision file.
        examples: folder of stage 10.
        quantized: folder of stage 40.
        runs: timed runs of each graph.
        out: folder to write into.
    """
    found = measure_variants(
        kept.load_variants(Path(quantized)),
        Examples.load(Path(examples)),
        read_decision(Path(decision)),
        runs=runs,
    )
    kept.save_measured(found, _folder(out))
    rows = [(i, m.row()) for i, m in enumerate(found)]
    named = {f"{n}.{i}": row[n] for i, row in rows for n in ("p50_us", "p99_us", "peak_mb", "flips_share")}
    write_figures(out, {name: value for name, value in named.items() if isinstance(value, float)})
    return found


def gate(
    *,
    decision: Where,
    examples: Where,
    trained: Where,
    quantized: Where,
    benched: Where,
    champion: str,
    counter: int,
    seed: int,
    out: Where,
) -> Evidence:
    """60: the unsigned bundle, every gate asked, and the page that says why.

    Args:
        decision: the decision file.
        examples: folder of stage 10.
        trained: folder of stage 20.
        quantized: folder of stage 40.
        benched: folder of stage 50.
        champion: bundle in force; empty = none.
        counter: release counter of the bundle.
        seed: of the resampling.
        out: folder to write into: ``bundle.aiot``, ``evidence.json``, ``report.html``.
    """
    wanted, given = read_decision(Path(decision)), Examples.load(Path(examples))
    measured = kept.load_measured(Path(benched), kept.load_variants(Path(quantized)))
    chosen = choose(measured, wanted).variant.exported
    assert chosen is not None  # a variant without a graph is not usable
    made = build_bundle(wanted, release_counter=counter, model=chosen, reference=given)
    rival = read_unsigned(Path(champion).read_bytes())[0] if champion else None
    candidate = Candidate(
        exported=chosen,
        measured=measured,
        leaks=kept.load_audit(Path(trained)),
        dataset=given.digest,
        bundle=made.digest,
        labels=dict(Counter(given.rows["status"].astype(str))),
        champion=None if rival is None else rival.digest,
        families=Trained.load(Path(trained)).table,
    )
    reads = chosen.interface.reads
    held_out = _held_out(given, Path(trained), wanted, reads, {} if rival is None else rival.files)
    evidence = judge(candidate, held_out, wanted, seed=seed)
    out = _folder(out)
    (out / BUNDLE_FILE).write_bytes(made.archive())
    (out / EVIDENCE_FILE).write_bytes(evidence.canonical())
    page = candidate_page(
        evidence, wanted, card=made.files["card.json"], held_out=held_out, leaks=candidate.leaks
    )
    page.write(out / REPORT_FILE)
    passed = {f"gate.{g.name}": float(g.passed) for g in evidence.gates}
    known = json.loads((Path(examples) / FIGURES).read_bytes())
    learned = {"labelled": len(given.labelled()), AS_OF: known[AS_OF]}
    write_figures(out, passed | learned | {"release_counter": counter})
    return evidence


def _held_out(
    examples: Examples,
    trained: Path,
    decision: Decision,
    reads: Collection[str],
    champion: Mapping[str, bytes],
) -> HeldOut:
    """The rows that were held out in training, and what each policy would have done on them."""
    given = examples.known()
    rows = given.rows[["subject", "at_us", "state", "status"]]
    policies = {RULE: rule_actions(given, decision)}
    if champion:
        policies[CHAMPION] = champion_actions(champion, given, decision)
    found = kept.load_arrays(trained)
    best = None
    if not isinstance(decision.costs, str):
        threshold = tuned_elsewhere(given.rows, given.x, given.columns, decision, found["fold"])
        policies |= {} if threshold is None else {THRESHOLD: threshold}
        best = thresholds(given.rows, given.x, given.columns, decision)
    return HeldOut(
        rows,
        found["p"],
        policies,
        found["novelty"],
        slices=slices_of(given),
        champion_until_us=learned_until(champion) if champion else None,
        margins=found["margins"],
        threshold="" if best is None else best.words,
        instead=without_head(given, reads, decision, found["novelty"]),
    )


def _check_used(words: OwnWords, decision: Decision, names: Sequence[str]) -> None:
    """Refuse words that nothing asks for, or that break a promise: before the lake is read."""
    if not any(map(own_word, names)):
        like = f"{next(iter(decision.signals))}.{next(iter(words))}"
        raise DataError(
            f"own words: no feature asks for a word of {words.name}",
            expected=f"one of {', '.join(words)} in the recipe or the decision file",
            do=f"Add one to the recipe, like 'auto,{like}'.",
        )
    check_words(words, decision, names)


def _words(path: Where) -> OwnWords | None:
    """What a file defines; '' names none."""
    return own_words_of(Path(path)) if str(path) else None


def _folder(out: Where) -> Path:
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
