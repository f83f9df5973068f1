"""Whether a retraining is due, from the folders of examples and of the last candidate."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.desk
pytest.importorskip("onnx")
pytest.importorskip("torch")

from worlds.bundles import bundle_files, decision_of  # noqa: E402
from worlds.heads import START_US, pump_examples  # noqa: E402

from aiotkit.bundle.unsigned import make_unsigned  # noqa: E402
from aiotkit.core.canonical import canonical_bytes  # noqa: E402
from aiotkit.lab.examples import Examples  # noqa: E402
from aiotkit.release.due import reasons  # noqa: E402
from aiotkit.release.papers import drift_reference  # noqa: E402
from aiotkit.release.registry import BUNDLE_FILE  # noqa: E402
from aiotkit.release.stages import FIGURES  # noqa: E402

DECISION = decision_of(trigger={"drift": 0.2, "new_labels": 50})
Folders = Callable[[str, Examples, int], tuple[Path, Path]]


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """A function that writes a candidate (its drift reference of some source) and what the lake gives now."""

    def write(source: str, now: Examples, labelled: int) -> tuple[Path, Path]:
        then = pump_examples(DECISION)
        names = DECISION.features()
        reference = drift_reference(names, then.with_columns(names).x, source)
        files = {**bundle_files(small=True), "reference.json": reference}
        files["decision.json"] = DECISION.canonical()
        bundle = make_unsigned(DECISION, files, release_counter=1)
        for name, count in (("candidate", 100), ("now", labelled)):
            (tmp_path / name).mkdir()
            figures = {"labelled": count, "as_of_us": START_US if name == "candidate" else START_US + 9}
            (tmp_path / name / FIGURES).write_bytes(canonical_bytes(figures))
        (tmp_path / "candidate" / BUNDLE_FILE).write_bytes(bundle.archive())
        now.save(tmp_path / "now")
        return tmp_path / "now", tmp_path / "candidate"

    return write


def moved(examples: Examples) -> Examples:
    """The same, every number three standard deviations on."""
    return replace(examples, x=(examples.x + 9).astype(np.float32))


def test_windows_that_have_moved_make_a_retraining_due(folders: Folders) -> None:
    """Drift against the windows the candidate was learned from, in words with its limit."""
    found = reasons(DECISION, *folders("training", moved(pump_examples(DECISION, seed=1)), 100))
    assert len(found) == 1
    assert found[0].startswith("drift ")
    assert found[0].endswith("(trigger: 0.2)")


def test_windows_like_those_of_training_make_none_due(folders: Folders) -> None:
    """Other windows of the same machines are no drift."""
    assert reasons(DECISION, *folders("training", pump_examples(DECISION, seed=1), 100)) == []


def test_made_up_windows_say_nothing_of_drift(folders: Folders, caplog: pytest.LogCaptureFixture) -> None:
    """A bundle built without examples triggers nothing by drift and says why; new labels still do."""
    given = folders("golden", moved(pump_examples(DECISION, seed=1)), 160)
    with caplog.at_level(logging.WARNING):
        assert reasons(DECISION, *given) == ["60 new labels (trigger: 50)"]
    assert "drift triggers nothing: drift reference: its windows were made up" in caplog.text
