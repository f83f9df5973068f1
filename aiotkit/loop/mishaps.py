"""What must not come to pass: bundles that a device has to refuse, and one that it has to take back."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import golden_files
from aiotkit.bundle.unsigned import Unsigned
from aiotkit.core.decision import Decision
from aiotkit.core.errors import AiotkitError
from aiotkit.core.features import NOVELTY
from aiotkit.lab.features import canonical_graph
from aiotkit.loop.setting import Keys
from aiotkit.release.bundle import assemble
from aiotkit.release.cases import golden_cases
from aiotkit.release.clear_cases import clear_cases

FLIPPED, ONE_KEY, OLDER = "one byte flipped", "signed by one of two keys", "an older release"
UNHEALTHY = "novelty limit far too tight"
#: how much tighter than it was learned
TIGHTER = 1000.0


@dataclass(frozen=True)
class Mishap:
    """Something that was tried on a device: ``answer`` in its own words, ``became`` in ours."""

    what: str
    round: int
    device: str
    at_us: int
    became: str
    answer: str

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {name: getattr(self, name) for name in ("what", "round", "device", "became", "answer")}


def bad_archives(running: Unsigned, keys: Keys, counter: int) -> Mapping[str, bytes]:
    """Archives that every device must refuse.

    Args:
        running: the bundle in force, which they are made of.
        keys: both release keys; none of the bad bundles lacks anything but what it is named after.
        counter: a release counter above every one so far.
    """
    newer, older = (_again(running, n) for n in (counter, 1))
    whole = newer.archive(keys.release)
    largest = max(running.files.values(), key=len)
    spot = whole.index(largest) + len(largest) // 2  # inside a file, so that its digest must tell
    flipped = whole[:spot] + bytes([whole[spot] ^ 1]) + whole[spot + 1 :]
    return {FLIPPED: flipped, ONE_KEY: newer.archive(keys.release[:1]), OLDER: older.archive(keys.release)}


def _again(bundle: Unsigned, counter: int) -> Unsigned:
    """The same files under another release counter."""
    about = bundle.manifest.model_copy(update={"release_counter": counter})
    return Unsigned(about, bundle.files)


def refusal(state: Path, archive: Path) -> str:
    """Try to install what a device must refuse; gives what it answered.

    Raises:
        AiotkitError: it was installed.
    """
    argv = [sys.executable, "-m", "aiotkit.edge.command", "install", "--json", "--state", str(state)]
    done = subprocess.run([*argv, str(archive)], capture_output=True, text=True, check=False, timeout=120)
    if done.returncode == 0:
        raise AiotkitError(
            f"device {state.name} installed {archive.name}", expected="a refusal", found=done.stdout[:200]
        )
    return str(json.loads(done.stdout)["error"])


def denials(state: Path) -> Mapping[str, str]:
    """The bundles that failed their probation on a device, and why: as ``aiotkit-edge status`` tells."""
    argv = [sys.executable, "-m", "aiotkit.edge.command", "status", "--json", "--state", str(state)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    return {one["bundle"]: str(one["why"]) for one in json.loads(done.stdout)["probation"]["denied"]}


def unhealthy(decision: Decision, candidate: Unsigned, counter: int) -> Unsigned:
    """A candidate whose novelty limit somebody set far too tight: sound in form, it knows no window any more.

    Its golden cases are made anew, so that a device has no reason to refuse it when it is installed.
    """
    kept = ("decision.json", "interface.json", "card.json", "reference.json", "policy.json")
    files = {name: candidate.files[name] for name in kept if name in candidate.files}
    files["graph.onnx"] = tighter(candidate.files["graph.onnx"], TIGHTER)
    cases = clear_cases(Engine(files), golden_cases(decision, model=True))
    return assemble(decision, files | golden_files(files, cases), release_counter=counter)


def tighter(graph: bytes, factor: float) -> bytes:
    """A graph whose novelty is multiplied by a factor."""
    model = onnx.load_from_string(graph)
    for node in model.graph.node:
        node.output[:] = ["learned/novelty" if name == NOVELTY else name for name in node.output]
        node.input[:] = ["learned/novelty" if name == NOVELTY else name for name in node.input]
    scale = numpy_helper.from_array(np.array([[factor]], dtype=np.float32), "learned/factor")
    model.graph.initializer.append(scale)
    model.graph.node.append(helper.make_node("Mul", ["learned/novelty", "learned/factor"], [NOVELTY]))
    return canonical_graph(model)
