"""A module of one's own is computed like the built-in ones, or refused with the promise it breaks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds.bundles import decision_of

from aiotkit.core.errors import DataError

pytestmark = pytest.mark.desk
torch = pytest.importorskip("torch")

HUM = """
import torch


class Hum(torch.nn.Module):
    word = "x_hum"

    def __init__(self, n, rate_hz):
        super().__init__()
        turns = torch.arange(n) * (2 * torch.pi * 10 / rate_hz)
        self.register_buffer("wave", torch.stack([turns.cos(), turns.sin()], dim=1) * (2 / n))

    def forward(self, x):
        return (x @ self.wave).square().sum(dim=1).sqrt()


class Helper(torch.nn.Module):
    pass
"""


@pytest.fixture
def words(tmp_path: Path) -> dict[str, Any]:
    """The words of a user's file."""
    from aiotkit.lab.own_words import own_words

    path = tmp_path / "my_features.py"
    path.write_text(HUM)
    return dict(own_words(path))


def test_a_file_gives_its_words(words: dict[str, Any]) -> None:
    """Classes with a word are found by it, others are left alone."""
    assert list(words) == ["x_hum"]


def test_an_own_word_is_computed_in_torch_and_in_the_graph(words: dict[str, Any]) -> None:
    """The feature, and that of a part of the window, is what the module says; bad samples make it NaN."""
    import onnxruntime as ort

    from aiotkit.lab.features import Front, compute_features, export_front

    decision, names = decision_of(), ["vib.x_hum", "vib.x_hum_2of2"]
    front = Front(decision, names, words)
    graph, interface = export_front(decision, names, words)
    n, rate = decision.samples("vib"), 64.0
    rng = np.random.default_rng(0)
    windows = {s: rng.uniform(0, 1, (3, decision.samples(s))).astype(np.float32) for s in decision.signals}
    windows["vib"][0] = 3 * np.sin(2 * np.pi * 10 / rate * np.arange(n))
    windows["vib"][2, 5] = math.nan
    session = ort.InferenceSession(graph)
    for found in (compute_features(front, windows), session.run(["features"], windows)[0]):
        for name in names:
            column = found[:, interface.features.index(name)]
            assert column[0] == pytest.approx(3, rel=0.02)
            assert np.isnan(column).tolist() == [False, False, True]


def test_a_good_module_passes_every_check(words: dict[str, Any]) -> None:
    """The example of a user's module keeps the promises of window statistics."""
    from aiotkit.lab.own_words import check_feature

    check_feature(words["x_hum"], 64, 64.0)


def broken(body: str) -> Any:
    """A module whose ``forward`` is an expression of x."""
    scope: dict[str, Any] = {"torch": torch}
    exec(
        "class Broken(torch.nn.Module):\n"
        "    def __init__(self, n, rate_hz):\n"
        "        super().__init__()\n"
        "        self.weights = torch.nn.Parameter(torch.rand(n))\n"
        f"    def forward(self, x):\n        return {body}\n",
        scope,
    )
    return scope["Broken"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x.abs()", r"result; expected float32 \[1\]; found float32 \[1, 32\]"),
        ("x.double().mean(dim=1)", r"result; expected float32 \[1\]; found float64 \[1\]"),
        ("x.add_(1).mean(dim=1)", "changes its input"),
        ("x.std(dim=1) / x.mean(dim=1)", "not finite for a finite window.* Give silence"),
        ("x.mean(dim=1) - x.mean()", "depends on the other windows"),
        ("(x * self.weights).sum(dim=1)", "not the same every time"),
    ],
)
def test_a_module_that_breaks_a_promise_is_refused(body: str, words: str) -> None:
    """Shape, type, input, finiteness, batch and repetition are each checked."""
    from aiotkit.lab.own_words import check_feature

    with pytest.raises(DataError, match=words):
        check_feature(broken(body), 32, 8.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nothing_of_this_name", "does not run"),
        ("import sys\nsys.exit(0)", "does not run; found SystemExit"),
        ("x = 1", "defines none"),
        (HUM.replace('"x_hum"', '"hum"'), r"Hum\.word; expected x_ and lower-case letters"),
        (HUM + "\n\nclass Again(Hum):\n    pass\n", "'x_hum' is there twice"),
    ],
)
def test_a_file_that_defines_no_words_is_refused(tmp_path: Path, text: str, words: str) -> None:
    """The message names the file and what to change."""
    from aiotkit.lab.own_words import own_words

    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"own words: mine\.py.*{words}"):
        own_words(path)
    with pytest.raises(DataError, match=r"own words: absent\.py; expected a Python file"):
        own_words(tmp_path / "absent.py")
    with pytest.raises(
        DataError, match=r"own words: mine\.txt; expected a Python file \(\.py\); found \.txt"
    ):
        own_words(path.rename(tmp_path / "mine.txt"))


def test_an_edited_file_is_read_anew_at_once(tmp_path: Path) -> None:
    """What runs is what the digest says: no cached bytes, even of the same length and second."""
    from aiotkit.lab.own_words import own_words

    path = tmp_path / "mine.py"
    path.write_text(HUM)
    before = own_words(path)
    stat = path.stat()
    path.write_text(HUM.replace("x_hum", "x_ham"))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    after = own_words(path)
    assert (list(before), list(after)) == (["x_hum"], ["x_ham"])
    assert before.digest != after.digest
    assert [p.name for p in tmp_path.iterdir()] == ["mine.py"]


def test_words_are_checked_as_a_decision_asks_for_them(words: dict[str, Any]) -> None:
    """At each length a feature has, those of the decision among them; the message names the feature."""
    from aiotkit.lab.own_words import check_words

    decision, asked = decision_of(), []

    def noted(n: int, rate_hz: float) -> Any:
        asked.append((n, rate_hz))
        return words["x_hum"](n, rate_hz)

    n, rate = decision.samples("vib"), 64.0
    check_words({"x_hum": noted}, decision, ["vib.x_hum", "vib.x_hum_1of2", "vib.x_hum_2of2", "vib.rms"])
    assert set(asked) == {(n, rate), (n // 2, rate)}
    check_words({"x_hum": broken("x.abs()")}, decision, ["vib.rms"])
    with pytest.raises(DataError, match=r"feature 'vib\.x_hum': own feature: result"):
        check_words({"x_hum": broken("x.abs()")}, decision, ["vib.x_hum"])
    with pytest.raises(DataError, match=r"'x_hun' is nobody's; expected x_hum\. did you mean 'x_hum'"):
        check_words(words, decision, ["vib.x_hun"])


def test_a_module_that_raises_is_an_error_about_the_module() -> None:
    """Whatever comes out of a user's code is told with the check in which it came."""
    from aiotkit.lab.own_words import check_feature

    with pytest.raises(DataError, match=r"own feature: fails in gives_one_number_a_window; found .*nowhere"):
        check_feature(broken("x.nowhere()"), 32, 8.0)
