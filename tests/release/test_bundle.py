from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds.bundles import bundle_files, decision_of, expectation, trust_and_keys

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import run_golden
from aiotkit.bundle.unsigned import Unsigned
from aiotkit.bundle.verify import verify_bundle
from aiotkit.core.errors import BundleError, GoldenError

pytestmark = pytest.mark.desk
onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")


def tools(sbom: bytes) -> dict[str, str]:
    return {t["name"]: t["version"] for t in json.loads(sbom)["metadata"]["tools"]["components"]}


def test_the_committed_test_bundle_is_what_its_decision_file_builds(built: Unsigned) -> None:
    """Rebuilding gives the committed bytes: all of them with the same tools, else all but the graph's own.

    Made with ``python tests/worlds/bundles.py``.
    """
    committed = bundle_files()
    assert built.files.keys() == committed.keys()
    for name in ("decision.json", "interface.json", "card.json", "golden.bin"):
        assert built.files[name] == committed[name], name
    if tools(built.files["sbom.json"]) == tools(committed["sbom.json"]):
        assert dict(built.files) == committed
    else:  # another exporter: other bytes, the same decisions
        golden = {name: committed[name] for name in ("golden.json", "golden.bin")}
        assert run_golden(Engine(built.files), golden) == len(json.loads(committed["golden.json"])["cases"])


_BUILD = """
import sys
from worlds.bundles import rebuild
sys.stdout.buffer.write(rebuild().archive())
"""


def test_the_same_archive_from_another_folder_and_process(built: Unsigned, tmp_path: Path) -> None:
    """Built in a fresh process, elsewhere, at another time, with another hash seed: the same bytes."""
    script = tmp_path / "build.py"
    script.write_text(_BUILD)
    tests = Path(__file__).resolve().parent.parent
    environment = {
        "PYTHONPATH": str(tests),
        "PYTHONHASHSEED": "99",
        "HOME": str(tmp_path),
        "TZ": "Asia/Tokyo",
    }
    run = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=True,
        timeout=300,
    )
    assert run.stdout == built.archive()


def test_a_built_bundle_verifies_and_decides(built: Unsigned) -> None:
    """Signed by both keys it verifies for this place and its golden cases run."""
    trust, keys, _, _ = trust_and_keys()
    bundle = verify_bundle(built.archive(keys), trust, expectation())
    assert run_golden(Engine(bundle.files), bundle.files) == 47


def test_nothing_of_this_machine_is_in_a_bundle(built: Unsigned) -> None:
    """No user, host, folder or time of building is in any file."""
    words = [str(Path.cwd()), str(Path.home()), sys.prefix, os.uname().nodename, "site-packages"]
    for name, data in built.files.items():
        for word in words:
            assert word.encode() not in data, (name, word)


def test_the_bill_of_materials_lists_every_file_with_its_digest(built: Unsigned) -> None:
    """CycloneDX 1.6: components with SHA-256, tools with versions, a serial number of the contents."""
    sbom = json.loads(built.files["sbom.json"])
    assert (sbom["bomFormat"], sbom["specVersion"], sbom["version"]) == ("CycloneDX", "1.6", 1)
    listed = {c["name"]: c["hashes"][0]["content"] for c in sbom["components"]}
    expected = {n: hashlib.sha256(d).hexdigest() for n, d in built.files.items() if n != "sbom.json"}
    assert listed == expected
    kinds = {c["name"]: c["type"] for c in sbom["components"]}
    assert kinds["graph.onnx"] == "machine-learning-model"
    assert sbom["serialNumber"].startswith("urn:uuid:")
    assert "timestamp" not in sbom["metadata"]
    assert tools(built.files["sbom.json"]).keys() == {"aiotkit", "torch", "onnx", "onnxscript", "onnxruntime"}


def test_the_serial_number_changes_with_the_contents() -> None:
    """Two bundles that differ in one byte have different serial numbers, the same bundle the same."""
    from aiotkit.release.papers import bill_of_materials

    one, same, other = (
        json.loads(bill_of_materials(decision_of(), {"a": data}))["serialNumber"]
        for data in (b"1", b"1", b"2")
    )
    assert one == same != other


def test_the_model_card_says_what_is_not_known(built: Unsigned) -> None:
    """A rule-only bundle says so, and claims no figures."""
    card = json.loads(built.files["card.json"])
    assert card["kind"] == "rule only"
    assert any("no trained model" in line for line in card["not_known"])
    assert card["decision"]["digest"] == decision_of().digest
    assert card["rule"][-1] == "otherwise: run"
    assert "at most 6 new commands in 3600 s" in card["gates"]["seldom"]


def test_the_drift_reference_counts_believable_windows_only(built: Unsigned) -> None:
    """Golden windows with bad samples of a signal do not count for its features."""
    reference = json.loads(built.files["reference.json"])
    assert reference["source"] == "golden"
    assert reference["features"]["vib.rms"]["count"] == 45  # of 47: NaN and out of range do not count
    quantiles = reference["features"]["vib.rms"]["quantiles"]
    assert quantiles == sorted(quantiles)
    assert len(quantiles) == len(reference["quantile_levels"])


def test_the_drift_reference_of_given_windows() -> None:
    """Mean, population std and quantiles over the rows, NaN rows apart; no rows give no numbers."""
    from aiotkit.release.papers import QUANTILES, drift_reference

    values = np.array([[1, 5], [2, np.nan], [3, np.inf], [4, 5]], dtype=np.float32)
    document = json.loads(drift_reference(["a", "b"], values, "reference"))
    a, b = document["features"]["a"], document["features"]["b"]
    assert (a["count"], a["mean"], b["count"], b["std"]) == (4, 2.5, 2, 0)
    assert a["std"] == pytest.approx(np.std([1, 2, 3, 4]))
    assert a["quantiles"] == pytest.approx(np.quantile([1, 2, 3, 4], QUANTILES))
    empty = json.loads(drift_reference(["a"], np.full((2, 1), np.nan, dtype=np.float32), "reference"))
    assert empty["features"]["a"] == {"count": 0, "mean": None, "std": None, "quantiles": []}


def test_reference_windows_given_by_the_builder_are_used() -> None:
    """Windows given for the reference determine it, not the golden ones."""
    from aiotkit.release.bundle import build_bundle

    decision = decision_of(rule=[{"otherwise": "run"}], gates=[], history={"hot": {
        "of": "temp.mean", "kind": "ewma", "over_s": 60}})  # fmt: skip
    rng = np.random.default_rng(0)
    windows = {n: rng.uniform(1, 3, (10, decision.samples(n))).astype(np.float32) for n in decision.signals}
    made = build_bundle(decision, release_counter=2, hardware=("aarch64",), site="any", reference=windows)
    reference = json.loads(made.files["reference.json"])
    assert (reference["source"], reference["features"]["temp.mean"]["count"]) == ("reference", 10)
    assert 1 < reference["features"]["temp.mean"]["mean"] < 3
    assert (made.manifest.hardware, made.manifest.site) == (("aarch64",), "any")


def test_a_bundle_whose_cases_fail_is_not_assembled(built: Unsigned) -> None:
    """Files that decide otherwise than their golden cases say are not packed."""
    from aiotkit.release.bundle import assemble

    decision = decision_of(rule=[{"otherwise": "slow"}])
    files = {k: v for k, v in built.files.items() if k != "sbom.json"} | {
        "decision.json": decision.canonical()
    }
    with pytest.raises(GoldenError, match="'ordinary-0': proposed"):
        assemble(decision, files, release_counter=1)


def _domain(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example", version=1)
    model.graph.node.add(op_type="Evil", domain="com.example", input=["vib"], output=["x"])


def _outside(model: onnx.ModelProto) -> None:
    entry = model.graph.initializer[0].external_data.add()
    entry.key, entry.value = "location", "weights.bin"


def _traces(model: onnx.ModelProto) -> None:
    model.graph.node[0].metadata_props.add(key="stack_trace", value="/home/ann/secret.py")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_domain, r"not standard.*com\.example"),
        (_outside, "outside the file"),
        (_traces, "metadata of the exporter"),
    ],
)
def test_T11_a_graph_that_is_more_than_arithmetic_is_refused(change: object, words: str) -> None:
    """Foreign operators, weights elsewhere and an exporter's traces never reach a bundle."""
    from aiotkit.release.graph import audit_graph

    audit_graph(bundle_files()["graph.onnx"])
    model = onnx.load_from_string(bundle_files()["graph.onnx"])
    change(model)  # type: ignore[operator]
    with pytest.raises(BundleError, match=words):
        audit_graph(model.SerializeToString())


def test_T11_what_is_no_graph_is_refused() -> None:
    """Bytes that are no ONNX graph are refused in words."""
    from aiotkit.release.graph import audit_graph

    with pytest.raises(BundleError, match="not a valid ONNX graph"):
        audit_graph(b"not a graph")


@pytest.fixture(scope="module")
def with_model() -> Unsigned:
    """A bundle with a hand-made head, and the examples it is said to be learned from."""
    from worlds.heads import exported_head, pump_examples

    from aiotkit.release.bundle import build_bundle

    decision = decision_of()
    examples = pump_examples(decision, windows=True)
    return build_bundle(decision, release_counter=3, model=exported_head(), reference=examples)


def test_a_bundle_with_a_model_verifies_and_decides_by_least_expected_cost(with_model: Unsigned) -> None:
    """Its golden cases run, and those like training propose what p and the costs say."""
    trust, keys, _, _ = trust_and_keys()
    bundle = verify_bundle(with_model.archive(keys), trust, expectation())
    cases = json.loads(bundle.files["golden.json"])["cases"]
    assert run_golden(Engine(bundle.files), bundle.files) == len(cases)
    like = [case for case in cases if case["name"].startswith("training-")]
    assert len(like) >= 6
    for case in like:
        p = case["expected"]["p"]
        assert abs(p["ok"] + p["worn"] - 1) < 1e-6
        assert case["expected"]["proposed"] in {"run", "slow", "stop", "ask"}


def test_the_model_card_says_what_decides_and_what_it_was_learned_from(with_model: Unsigned) -> None:
    """Family, columns, figures, parity, the examples' digest and labels by status; and what is not known."""
    from worlds.heads import COLUMNS, pump_examples

    card = json.loads(with_model.files["card.json"])
    examples = pump_examples(decision_of(), windows=True)
    assert card["kind"] == "model"
    model = card["model"]
    assert (model["family"], model["variant"], model["seed"]) == ("linear", "float32", 0)
    assert model["reads"] == list(COLUMNS)
    assert model["figures"] == {"log_loss": 0.2}
    assert model["parity"]["label_flips"] == 0
    origin = model["learned_from"]
    assert origin["digest"] == examples.digest
    assert origin["labels"] == {s: int(n) for s, n in examples.rows["status"].value_counts().items()}
    assert sum(origin["states"].values()) == origin["labelled"] == len(examples.labelled())
    assert "for each pump of site hall-1" in card["intended_use"].lower()
    assert any("no state that may be learned from" in line for line in card["not_known"])
    assert not any("no trained model" in line for line in card["not_known"])


def test_the_margin_that_training_measured_goes_into_the_bundle(with_model: Unsigned) -> None:
    """``policy.json`` and the card hold it, the decision file stays; without one there is no such file."""
    from dataclasses import replace

    from worlds.heads import exported_head

    from aiotkit.bundle.tuned import POLICY_FILE, Tuned
    from aiotkit.release.bundle import build_bundle

    assert POLICY_FILE not in with_model.files
    assert json.loads(with_model.files["card.json"])["model"]["margin"] == 0
    model = replace(exported_head(), figures={"margin": 120.5})
    made = build_bundle(decision_of(), release_counter=3, model=model)
    assert made.files[POLICY_FILE] == Tuned(margin=120.5).canonical()
    assert json.loads(made.files["card.json"])["model"]["margin"] == 120.5
    assert made.files["decision.json"] == with_model.files["decision.json"]
    assert Engine(made.files).decision.policy.margin == 120.5
    trust, keys, _, _ = trust_and_keys()
    assert POLICY_FILE in verify_bundle(made.archive(keys), trust, expectation()).files


def test_the_card_of_a_model_without_its_examples_says_so() -> None:
    """Without the examples the card does not pretend to know them, and a state never seen is named."""
    from worlds.heads import exported_head, pump_examples

    from aiotkit.release.papers import learned, model_card

    decision, model = decision_of(), exported_head()
    card = json.loads(model_card(decision, model.interface, learned(model)))
    assert card["not_known"] == ["The data it was learned from are not named in this bundle."]
    healthy = pump_examples(decision)
    healthy = healthy.take((healthy.rows["state"] != "worn").to_numpy())
    card = json.loads(model_card(decision, model.interface, learned(model, healthy)))
    assert "States that never occurred in training: worn." in card["not_known"]


def test_the_drift_reference_of_a_model_is_that_of_its_examples(with_model: Unsigned) -> None:
    """Every feature of the graph, over the rows of the examples that know it."""
    from worlds.heads import pump_examples

    examples = pump_examples(decision_of(), windows=True)
    reference = json.loads(with_model.files["reference.json"])
    assert reference["source"] == "training"
    assert list(reference["features"]) == sorted(json.loads(with_model.files["interface.json"])["features"])
    column = examples.x[:, examples.columns.index("vib.rms")]
    assert reference["features"]["vib.rms"]["count"] == int(np.isfinite(column).sum())
    assert reference["features"]["vib.rms"]["mean"] == pytest.approx(np.nanmean(column), rel=1e-6)


def test_a_bundle_with_the_same_model_has_the_same_digest_and_a_variant_another(with_model: Unsigned) -> None:
    """Identity follows from decision, model and examples; a quantized head is another bundle."""
    from worlds.heads import exported_head, pump_examples

    from aiotkit.release.bundle import build_bundle
    from aiotkit.release.cases import golden_cases
    from aiotkit.release.quantize import calibration_of, variants

    decision = decision_of()
    examples = pump_examples(decision, windows=True)
    again = build_bundle(decision, release_counter=3, model=exported_head(), reference=examples)
    assert again.digest == with_model.digest
    mlp = exported_head("mlp")
    few = golden_cases(decision)[:3]
    made = variants(mlp, calibration_of(mlp, examples, seed=1))
    digests = {
        build_bundle(decision, release_counter=3, model=v.exported, reference=examples, cases=few).digest
        for v in made
    }
    assert len(digests) == 4


def test_a_model_for_another_decision_is_not_packed() -> None:
    """A model belongs to the very decision file it was trained for."""
    from worlds.heads import exported_head

    from aiotkit.release.bundle import build_bundle

    with pytest.raises(BundleError, match=r"model 'linear': made for another decision"):
        build_bundle(decision_of(revision=2), release_counter=1, model=exported_head())
