"""``aiotkit run``: the pipelines, made to be called by a scheduler."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aiotkit.release.evidence import Evidence
    from aiotkit.release.pipeline import Outcome

#: exit codes beside 0 to 3: the gates refused the candidate; another run is at work
REFUSED, BUSY = 4, 5
DEFAULT_WORK = Path("work")
#: gates whose words say what a candidate costs
_IN_MONEY = ("beats_rule", "beats_constant")
#: why rows have no label to learn from
_NO_LABEL = (
    ("pending", "too young to have an outcome"),
    ("censored", "acted upon"),
    ("unlabelled", "without a report"),
    ("unassigned", "not watched"),
)

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Run a pipeline: retrain, or release what was approved."
)

_RETRAIN = """Make a candidate from a lake (assemble, train, export, quantize, bench, gate), register it.

What has not changed is not done again, and a run that was killed goes on where it was. The same command
suits cron, systemd, Kubernetes and Airflow. Exit codes: 0 a candidate that passed its gates is registered,
or nothing had changed, or nothing was due; 1 a stage failed; 2 the input is wrong; 3 the place is (disk,
store, lake: run it again); 4 the candidate is registered and its gates refused it; 5 another run is at work
in this folder.

\b
Examples:
  aiotkit run retrain --decision pump.yaml --lake lake
  aiotkit run retrain --decision pump.yaml --lake lake --families lda,logistic --seed 3 --in-process
  aiotkit run retrain --decision pump.yaml --lake lake --own-words mine.py --recipe auto,vib.x_hum
  aiotkit run retrain --decision pump.yaml --lake s3://plant/lake --store http://mlflow:5000 --if-triggered
"""
_RELEASE = """Sign an approved candidate, publish it, and make it the champion.

The approval must be by whom the trust file names (role approval) and name exactly this bundle and its
evidence. Exit codes: 0 released, or it was released already and nothing has changed; 1 it is not approved;
5 another run is at work in this folder.

\b
Examples:
  aiotkit run release pump --trust trust.json --key alice.pem --to releases
  aiotkit run release pump --version 4 --trust trust.json --key alice.pem --key bob.pem --to releases
"""

WorkOption = Annotated[Path, typer.Option(help="Folder in which pipelines keep what they made.")]
StoreOption = Annotated[
    str | None,
    typer.Option(
        envvar="MLFLOW_TRACKING_URI", help="MLflow: a server's address or a folder (default: work)."
    ),
]
ProcessOption = Annotated[bool, typer.Option("--in-process", help="Call the functions, run no notebooks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]


@app.command(help=_RETRAIN)
def retrain(
    decision: Annotated[Path, typer.Option(help="The decision file.")],
    lake: Annotated[str, typer.Option(help="Folder or object-store URI of the lake.")],
    work: WorkOption = DEFAULT_WORK,
    store: StoreOption = None,
    params: Annotated[Path | None, typer.Option(help="YAML file of settings; options win over it.")] = None,
    families: Annotated[str | None, typer.Option(help="Heads that compete, with commas.")] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Features: auto, plain, spectral, segments:K, with commas.")
    ] = None,
    own_words: Annotated[
        Path | None, typer.Option(help="Python file with words of your own (x_…) that --recipe names.")
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Parts the rows are held out in (at most one a subject).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Every random number follows from it.")] = None,
    counter: Annotated[
        int | None, typer.Option(min=1, help="Release counter (one above the highest registered).")
    ] = None,
    as_of: Annotated[str | None, typer.Option(help="What was known then (ISO 8601 with offset).")] = None,
    in_process: ProcessOption = False,
    if_triggered: Annotated[
        bool, typer.Option("--if-triggered", help="Go on only where the decision's trigger says so.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a candidate."""
    from aiotkit.cli.output import say
    from aiotkit.cli.progress import stages
    from aiotkit.lab.instants import moment_us
    from aiotkit.release.pipeline import Retrain, read_params
    from aiotkit.release.pipeline import retrain as run
    from aiotkit.release.store import tracking_uri

    settings = read_params(params, families=families, recipe=recipe, folds=folds, seed=seed)
    asked = Retrain(
        decision,
        lake,
        work,
        tracking_uri(store or str(work)),
        settings,
        as_of_us=None if as_of is None else moment_us(as_of),
        counter=counter,
        in_process=in_process,
        if_triggered=if_triggered,
        own_words=own_words,
    )
    with stages(quiet=as_json) as progress:
        found = run(asked, progress)
    refused = [] if found.evidence is None else [g.name for g in found.evidence.refused]
    say(_data(found), _words(found), as_json)
    if found.status == "registered" and refused:
        raise typer.Exit(REFUSED)


def _data(found: Outcome) -> dict[str, object]:
    made = found.version
    stages = [{"stage": d.name, "status": d.status, "why": d.why, "seconds": d.seconds} for d in found.stages]
    data: dict[str, object] = {"status": found.status, "due": list(found.due), "stages": stages}
    if made is None or found.evidence is None:
        return data
    return data | {
        "decision": made.decision_id,
        "version": made.number,
        "bundle": made.bundle,
        "evidence": made.evidence,
        "release_counter": made.release_counter,
        "family": found.evidence.family,
        "labels": dict(found.evidence.labels),
        "gates": [{"gate": g.name, "passed": g.passed, "words": g.words} for g in found.evidence.gates],
        "passed": found.evidence.passed,
        "notes": list(found.notes),
        "report": found.report,
    }


def _words(found: Outcome) -> str:
    made, evidence = found.version, found.evidence
    if made is None or evidence is None:
        return "nothing is due: the decision's trigger asks for no retraining"
    new = "registered" if found.status == "registered" else "nothing had changed"
    lines = [f"{made.decision_id} version {made.number}: {new}; bundle {made.bundle}"]
    lines += [f"  {_learned(evidence)}"]
    lines += [f"  {g.name}: {g.words}" for g in evidence.gates if g.name in _IN_MONEY and g.passed]
    lines += [f"  note: {note}" for note in found.notes]
    lines += [f"  refused by {g.name}: {g.words}" for g in evidence.refused]
    lines += [f"report: {found.report}"]
    if evidence.passed:
        lines += [
            "every gate passed",
            f"next: aiotkit approve {made.decision_id} --version {made.number} --key KEY.pem",
        ]
    return "\n".join(lines)


def _learned(evidence: Evidence) -> str:
    """Which head was learned from how many rows, and what became of the others."""
    rows = f"{int(evidence.figures.get('rows') or 0):,} of {sum(evidence.labels.values()):,} rows"
    left = ", ".join(f"{n:,} {words}" for status, words in _NO_LABEL if (n := evidence.labels.get(status, 0)))
    return f"{evidence.family}, {evidence.variant}: learned from {rows}" + (f"; {left}" if left else "")


@app.command(help=_RELEASE)
def release(
    decision_id: Annotated[str, typer.Argument(help="Id of the decision.")],
    trust: Annotated[Path, typer.Option(help="The trust file (trust.json).")],
    key: Annotated[list[Path], typer.Option(help="Release key (PEM); may be given several times.")],
    to: Annotated[Path, typer.Option(help="The release folder.")],
    version: Annotated[int | None, typer.Option(min=1, help="Of the candidate (the newest).")] = None,
    group: Annotated[str | None, typer.Option(help="The pilot group it is approved for, if for one.")] = None,
    work: WorkOption = DEFAULT_WORK,
    store: StoreOption = None,
    in_process: ProcessOption = False,
    as_json: JsonOption = False,
) -> None:
    """Release an approved candidate."""
    from aiotkit.cli.output import say
    from aiotkit.cli.progress import stages
    from aiotkit.release.releasing import Asked
    from aiotkit.release.releasing import release as run
    from aiotkit.release.store import tracking_uri

    where = tracking_uri(store or str(work))
    asked = Asked(decision_id, version, where, trust, key, to, work, in_process, group)
    with stages(quiet=as_json) as progress:
        found = run(asked, progress)
    latest = found.index.newest
    assert latest is not None  # it was published just now
    place = to / decision_id / latest.file
    if not found.standing.authenticated:
        warn_unauthenticated("approval")
    data = {
        "status": found.status,
        "decision": decision_id,
        "version": found.version.number,
        "bundle": found.version.bundle,
        "release_counter": found.version.release_counter,
        "approval": found.standing.words,
        "authenticated": found.standing.authenticated,
        "file": place,
    }
    new = "released" if found.status == "released" else "was released already; nothing had changed"
    say(
        data, f"{decision_id} version {found.version.number}: {new}\n{found.standing.words}\n{place}", as_json
    )


def warn_unauthenticated(what: str) -> None:
    """Say on stderr, loudly, that nobody proved who they are: of an approval, or of a rejection."""
    import sys

    from aiotkit.release.approve import UNAUTHENTICATED

    print(f"WARNING: this {what} is {UNAUTHENTICATED}.", file=sys.stderr)
    print(
        "WARNING: name approval keys in the trust file (aiotkit keys trust --approval FILE) and sign with "
        "one: --key FILE.",
        file=sys.stderr,
    )
    sys.stderr.flush()


def said_by() -> str:
    """Who is at the keyboard, as the system calls them; a claim, no proof."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"
