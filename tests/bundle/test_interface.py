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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"inputs": {}}, "inputs"),
        ({"inputs": {"vib": 0}}, "inputs"),
        ({"features": ["a.rms", "a.rms"]}, "features names something twice"),
        ({"format": 2}, "format"),
        ({"outputs": []}, "outputs: unknown key"),
    ],
)
def test_what_is_no_interface_is_refused(change: dict[str, Any], words: str) -> None:
    """Anything but an interface of format 1 is refused in words."""
    with pytest.raises(BundleError, match=words):
        parse_interface(canonical_bytes(json.loads(GOOD.canonical()) | change))
