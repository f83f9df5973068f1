"""The desk at a round's end: what passed its gates is released, the rest is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("mlflow")
pytest.importorskip("torch")
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from worlds.bundles import DECISION_ID, decision_of, unsigned_bundle  # noqa: E402
from worlds.candidates import candidate, registered  # noqa: E402
from worlds.model_bundles import model_files  # noqa: E402

from aiotkit.bundle.verify import verify_signed  # noqa: E402
from aiotkit.core.errors import IntegrityError, SignatureError  # noqa: E402
from aiotkit.loop.mishaps import FLIPPED, OLDER, ONE_KEY, bad_archives, tighter  # noqa: E402
from aiotkit.loop.promotion import Attempt, Desk  # noqa: E402
from aiotkit.loop.setting import prepare  # noqa: E402
from aiotkit.release.evidence import parse_evidence  # noqa: E402
from aiotkit.release.registry import Registry  # noqa: E402


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    place, keys = prepare(tmp_path / "run")
    return Desk(place, keys, decision_of(), "lda", 7, 2)


def attempt_of(desk: Desk, **given: Any) -> Attempt:
    """A candidate as a retraining leaves it in the registry."""
    version = registered(Registry(desk.store), 2, **given)
    evidence = parse_evidence(candidate(2, **given).evidence)
    return Attempt(0, 0, version=version, evidence=evidence, candidate=unsigned_bundle(2))


def test_what_passed_its_gates_is_approved_signed_and_champion(desk: Desk) -> None:
    """A signed statement, both release keys on the archive, and the alias moves."""
    made = desk.consider(attempt_of(desk))
    assert made.refused == ""
    assert made.signed is not None
    verified = verify_signed(made.signed.read_bytes(), desk.keys.trust())
    assert verified.manifest.release_counter == 2
    (said,) = desk.approvals
    assert (said["verdict"], said["authenticated"], said["bundle"]) == ("approved", True, verified.digest)
    champion = Registry(desk.store).champion(DECISION_ID)
    assert champion is not None
    assert champion.bundle == verified.digest


def test_what_failed_a_gate_is_rejected_and_not_released(desk: Desk) -> None:
    """The reason is kept with a signed rejection; there is no champion and no archive."""
    made = desk.consider(attempt_of(desk, refused=("beats_rule",)))
    assert made.signed is None
    assert made.refused == "beats_rule: as it was measured"
    assert [(a["verdict"], a["authenticated"]) for a in desk.approvals] == [("rejected", True)]
    assert Registry(desk.store).champion(DECISION_ID) is None
    assert not list(desk.place.bundles.iterdir())


def test_a_pilot_is_signed_but_neither_published_nor_champion(desk: Desk) -> None:
    """What is approved for one device alone goes to nobody else."""
    released = desk.consider(attempt_of(desk))
    assert released.version is not None
    made = unsigned_bundle(3)
    version, path = desk.pilot(made, released, "edge-01")
    assert verify_signed(path.read_bytes(), desk.keys.trust()).digest == made.digest
    assert desk.approvals[-1]["pilot"] == "edge-01"
    assert desk.approvals[-1]["version"] == version.number
    champion = Registry(desk.store).champion(DECISION_ID)
    assert champion is not None
    assert champion.bundle == released.version.bundle
    assert desk.counter == 4


def test_a_bad_bundle_lacks_only_what_it_is_named_after(desk: Desk) -> None:
    """Each is refused for its own reason; the older one is sound but for its counter."""
    bad = bad_archives(unsigned_bundle(5), desk.keys, 6)
    trust = desk.keys.trust()
    with pytest.raises(IntegrityError, match="expected sha256"):
        verify_signed(bad[FLIPPED], trust)
    with pytest.raises(SignatureError, match="found 1 \\(of 1 signatures\\)"):
        verify_signed(bad[ONE_KEY], trust)
    assert verify_signed(bad[OLDER], trust).manifest.release_counter == 1


def test_a_tighter_limit_changes_novelty_and_nothing_else() -> None:
    """Novelty grows by the factor; probabilities and features stay."""
    import onnxruntime as ort

    graph = model_files()["graph.onnx"]
    before, after = (ort.InferenceSession(g) for g in (graph, tighter(graph, 1000.0)))
    rng = np.random.default_rng(3)
    feeds = {
        i.name: rng.normal(size=[1 if isinstance(n, str) else n for n in i.shape]).astype(np.float32)
        for i in before.get_inputs()
    }
    old, new = (
        dict(zip([o.name for o in s.get_outputs()], s.run(None, feeds), strict=True)) for s in (before, after)
    )
    assert new["novelty"] == pytest.approx(1000.0 * old["novelty"])
    for name in ("p", "features"):
        np.testing.assert_array_equal(new[name], old[name])
