from __future__ import annotations

import json
from typing import Any

import pytest
from worlds.bundles import bundle_files, decision_of

from aiotkit.bundle.interface import interface_of, parse_interface
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import BundleError

DECISION = decision_of()
GOOD = interface_of(DECISION)


def test_an_interface_follows_from_the_decision_and_survives_its_bytes() -> None:
    """Signals with their samples go in, the features that are read come out; reading gives it back."""
    assert dict(GOOD.inputs) == {"oil": 1, "temp": 8, "vib": 256}
    assert GOOD.features == DECISION.features()
    assert parse_interface(GOOD.canonical()) == GOOD
    assert bundle_files()["interface.json"] == GOOD.canonical()


def test_outputs_follow_from_the_states() -> None:
    """A rule-only graph gives features; one with a model gives probabilities too."""
    assert GOOD.outputs == ("features",)
    assert interface_of(DECISION, states=("ok", "worn")).outputs == ("features", "p")
    with_all = interface_of(DECISION, states=("ok", "worn"), novelty=True)
    assert with_all.output_widths == {"features": len(GOOD.features), "p": 2, "novelty": 1}


def test_history_and_context_are_inputs_where_a_model_reads_them() -> None:
    """Each is one input as wide as its columns; a graph that reads none has no such input."""
    made = interface_of(DECISION, history=("history.hot",), context=("context.mode=cleaning", "context.load"))
    assert made.input_widths == {**GOOD.inputs, "history": 1, "context": 2}
    assert GOOD.input_widths == dict(GOOD.inputs)
    assert parse_interface(made.canonical()) == made


def test_what_format_1_got_later_is_written_only_where_it_is_used() -> None:
    """An interface without novelty has the bytes it always had: devices of before read it."""
    assert {"novelty", "head_reads"}.isdisjoint(json.loads(GOOD.canonical()))
    later = interface_of(DECISION, novelty=True)
    assert json.loads(later.canonical())["novelty"] is True
    assert parse_interface(later.canonical()) == later


def test_the_features_may_be_more_than_the_decision_reads() -> None:
    """A model's own features come out of the graph too."""
    names = (*DECISION.features(), "vib.band_1of8")
    assert interface_of(DECISION, features=names).features == names


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"vib": 0}}, "inputs"),
        ({"features": ["a.rms", "a.rms"]}, "features names something twice"),
        ({"format": 2}, "format"),
        (
            {"history_inputs": ["hot"]},
            r"history_inputs names columns of history, like 'history.x'; found 'hot'",
        ),
        ({"context_inputs": ["load"]}, r"context_inputs names columns of context"),
        ({"context_inputs": ["context.a", "context.a"]}, "context_inputs names something twice"),
        ({"head_reads": ["vbi"]}, "head_reads: 'vbi' is no input; inputs are"),
        ({"outputs": []}, "outputs: unknown key"),
    ],
)
def test_what_is_no_interface_is_refused(change: dict[str, Any], words: str) -> None:
    """Anything but an interface of format 1 is refused in words."""
    with pytest.raises(BundleError, match=words):
        parse_interface(canonical_bytes(json.loads(GOOD.canonical()) | change))
