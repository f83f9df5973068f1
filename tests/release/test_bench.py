"""What a graph costs in time and memory, measured in a process of its own."""

from __future__ import annotations

import numpy as np
import pytest

pytestmark = pytest.mark.desk
pytest.importorskip("onnx")
pytest.importorskip("torch")

from onnx import helper  # noqa: E402
from worlds.heads import exported_head, model_of  # noqa: E402

from aiotkit.bundle.interface import FEATURES  # noqa: E402
from aiotkit.core.errors import BundleError  # noqa: E402
from aiotkit.release.bench import bench  # noqa: E402


def slow_graph(size: int) -> bytes:
    """Four products of square matrices."""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(0, 0.01, (size, size)).astype(np.float32) for i in range(4)}
    given = [FEATURES, "h1", "h2"]
    nodes = [helper.make_node("MatMul", [name, f"w{i}"], [f"h{i + 1}"]) for i, name in enumerate(given)]
    nodes.append(helper.make_node("MatMul", ["h3", "w3"], ["p"]))
    return model_of(nodes, weights, size, size)


def test_a_benchmark_says_where_and_how_often_it_was_measured() -> None:
    """Device, runtime, threads, runs, warm-up, percentiles in order, memory, load and sizes."""
    made = exported_head("mlp")
    found = bench(made.graph, head=made.head, runs=60)
    assert {"cpu", "architecture", "cores", "onnxruntime", "python", "load_1min"} <= found["device"].keys()
    assert (found["runs"], found["warm_up"]) == (60, 6)
    assert (found["size_bytes"], found["head_bytes"]) == (len(made.graph), len(made.head))
    assert found["threads"].keys() == {"1", "all"}
    assert found["threads"]["1"]["threads"] == 1
    assert found["threads"]["all"]["threads"] == found["device"]["cores"]
    for one in found["threads"].values():
        assert one["load_ms"] > 0
        for part in ("whole", "head"):
            assert 0 < one[part]["p50_us"] <= one[part]["p95_us"] <= one[part]["p99_us"]
        assert one["head"]["p50_us"] < one["whole"]["p50_us"]


def test_peak_memory_is_the_graphs_own() -> None:
    """A process with 64 MB of weights peaks that much higher; ballast of the parent does not count."""
    ballast = np.ones(40_000_000)  # 320 MB held by this process
    large = bench(slow_graph(2048), runs=5, threads=["1"])["threads"]["1"]
    small = bench(exported_head().graph, runs=5, threads=["1"])["threads"]["1"]
    assert large["peak_mb"] - large["floor_mb"] > 64
    assert small["peak_mb"] - small["floor_mb"] < 40
    assert large["peak_mb"] < 300 < ballast.nbytes / (1 << 20)


def test_speed_is_compared_in_turns_with_the_reference() -> None:
    """Against itself about one; a graph of a thousandth of the work is many times as fast."""
    slow, fast = slow_graph(512), slow_graph(16)
    itself = bench(slow, reference=slow, runs=50, threads=["1"])["threads"]["1"]
    assert 0.6 < itself["speedup"] < 1.6
    assert bench(fast, reference=slow, runs=50, threads=["1"])["threads"]["1"]["speedup"] > 4
    assert "speedup" not in bench(fast, runs=5, threads=["1"])["threads"]["1"]


def test_a_graph_that_cannot_be_run_is_refused_in_words() -> None:
    """What fails in the measuring process comes back as a message."""
    with pytest.raises(BundleError, match="bench: the graph cannot be measured; found"):
        bench(b"not a graph", runs=5, threads=["1"])
