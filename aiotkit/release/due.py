"""Whether a retraining is due: what is in the lake now, against what the last candidate was learned from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.lab.drift import drift_score, trigger
from aiotkit.lab.examples import Examples
from aiotkit.release.registry import BUNDLE_FILE
from aiotkit.release.stages import FIGURES
from aiotkit.release.steps import AS_OF

log = logging.getLogger(__name__)


def reasons(decision: Decision, examples: Path, candidate: Path) -> list[str]:
    """Why a retraining is due by the decision's trigger; empty = it is not.

    Args:
        decision: with its trigger; one that declares none is always due.
        examples: folder of what the lake gives now.
        candidate: folder of the last candidate; when there is none, the first is due.
    """
    if not (candidate / FIGURES).is_file():
        return ["there is no candidate yet"]
    wanted = decision.trigger
    if wanted.new_labels is None and wanted.every_s is None and wanted.drift is None:
        return ["the decision declares no trigger"]
    then, now = (json.loads((folder / FIGURES).read_bytes()) for folder in (candidate, examples))
    return trigger(
        decision,
        new_labels=int(now["labelled"] - then["labelled"]),
        since_s=(now[AS_OF] - then[AS_OF]) / 1e6,
        drift=_drift(Examples.load(examples), candidate, then[AS_OF]) if wanted.drift is not None else None,
    )


def _drift(found: Examples, candidate: Path, since_us: float) -> float | None:
    """How far the windows since then have moved from those the candidate was learned from.

    None where that cannot be told, as of a bundle whose windows were made up: other triggers still count.
    """
    files = read_unsigned((candidate / BUNDLE_FILE).read_bytes())[0].files
    recent = found.take((found.rows["at_us"] > since_us).to_numpy(dtype=bool))
    if not len(recent):
        return None
    names, groups = recent.columns, recent.rows["subject"]
    try:
        return drift_score(files["reference.json"], recent.x, names=names, groups=groups)
    except DataError as error:
        log.warning("drift triggers nothing: %s", error)
        return None
