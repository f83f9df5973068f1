"""How long a decision takes, and what of it is not the graph.

One pinned graph (``reference.py``: three windows of 1,024 samples, 75 features, a linear head, novelty) on
one thread. In turns, in the same run: the engine's whole ``decide`` (checks, history, graph, least expected
cost, gates, autonomy) over a chain of ordinary windows; the floor, a bare ``session.run`` of the same graph;
and a decision made durable in the journal, window and record, one commit each. ``paced``: with 20 ms of sleep
between two calls, as on a device, where caches are cold.

Peers, where they can be run: ``mlflow models serve`` of the same graph, asked over HTTP on the same machine;
pandas + tsfresh + scikit-learn on like features (``--tsfresh PYTHON``, an interpreter that has them).
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import Figure, arguments, interleave, median_ratio, percentiles, progress, report
from reference import DIGEST, NAMES, reference_files, reference_input

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.session import open_graph
from aiotkit.core.canonical import digest
from aiotkit.core.records import DecisionInput, EngineState, RecordType, decision_payload, pack_windows
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal

CHAIN = 64
PACE_S = 0.02
SERVER_S = 90.0
Call = Callable[[int], object]

#: run by the interpreter of ``--tsfresh``: one line in, the median µs of that many windows out
TSFRESH = """
import sys, time, json, statistics, warnings
warnings.simplefilter("ignore")
import numpy as np, pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tsfresh import extract_features
wanted = {name: None for name in (
    "mean", "standard_deviation", "minimum", "maximum", "root_mean_square", "kurtosis", "absolute_maximum")}
wanted["number_crossing_m"] = [{"m": 0}]
wanted["fft_aggregated"] = [{"aggtype": "centroid"}]
wanted["spkt_welch_density"] = [{"coeff": i} for i in range(16)]
rng = np.random.default_rng(7)
def window():
    frame = pd.DataFrame(rng.normal(0, 1, (1024, 3)), columns=["x", "y", "z"])
    return frame.assign(id=0, time=np.arange(1024))
def features():
    return extract_features(window(), column_id="id", column_sort="time", default_fc_parameters=wanted,
                            n_jobs=0, disable_progressbar=True)
columns = features().shape[1]
head = make_pipeline(StandardScaler(), LogisticRegression())
head.fit(rng.normal(size=(200, columns)), rng.integers(0, 2, 200))
print(json.dumps({"columns": columns}), flush=True)
for line in sys.stdin:
    spent = []
    for _ in range(int(line)):
        start = time.perf_counter()
        head.predict_proba(features().to_numpy())
        spent.append((time.perf_counter() - start) * 1e6)
    print(statistics.median(spent), flush=True)
"""


class Chain:
    """Decisions one after the other, each from the state that the one before handed on."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.steps: list[tuple[EngineState, DecisionInput]] = []
        state = EngineState()
        for i in range(CHAIN):
            given = reference_input(step=i)
            self.steps.append((state, given))
            state = engine.decide(state, given)[0].state

    def decide(self, i: int) -> object:
        """The i-th decision of the chain, again."""
        return self.engine.decide(*self.steps[i % CHAIN])


def bare(engine: Engine, files: dict[str, bytes]) -> Call:
    """A plain run of the graph on inputs that lie ready."""
    session = open_graph(files["graph.onnx"])
    names = list(engine.interface.outputs)
    feeds = []
    for i in range(CHAIN):
        given = reference_input(step=i)
        known = {name: values[np.newaxis] for name, values in given.windows.items()}
        known["history"] = np.array([[0.0, 5.0]], np.float32)
        known["context"] = np.array([[73.0, 0.0, 1.0]], np.float32)
        feeds.append(known)
    return lambda i: session.run(names, feeds[i % CHAIN])


class Durable:
    """Decide, record, commit: as the agent does for a single decision."""

    def __init__(self, chain: Chain, folder: Path) -> None:
        self.chain = chain
        self.journal = Journal.open(RealDisk(folder), "bench", quota_bytes=4 << 30)

    def once(self, i: int) -> object:
        """From the window's arrival until its decision is on the disk."""
        state, given = self.chain.steps[i % CHAIN]
        window = pack_windows(given.windows)
        decided, stages = self.chain.engine.decide(state, given)
        payload = decision_payload(
            given, state, decided, window_digest=digest(window), bundle=DIGEST, decision=("reference", 1),
            timing={"stages_us": stages},
        )  # fmt: skip
        self.journal.append(RecordType.WINDOW, window)
        self.journal.append(RecordType.DECISION, payload)
        self.journal.commit()
        return None


class Timed:
    """A measurement of single calls: the median of a block; every single time is kept."""

    def __init__(self, call: Call, block: int, pause_s: float = 0.0) -> None:
        self.call, self.block, self.pause_s = call, block, pause_s
        self.all: list[float] = []
        self.count = 0

    def __call__(self) -> float:
        """One block; its median, µs."""
        spent = []
        for _ in range(self.block):
            if self.pause_s:
                time.sleep(self.pause_s)
            start = time.perf_counter_ns()
            self.call(self.count)
            spent.append((time.perf_counter_ns() - start) / 1e3)
            self.count += 1
        self.all += spent
        return statistics.median(spent)


@contextmanager
def served(files: dict[str, bytes], folder: Path) -> Iterator[Callable[[], float]]:
    """A measurement (median µs of ten questions over an open connection) of ``mlflow models serve``."""
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(
        onnx.load_from_string(files["graph.onnx"]), str(folder / "model"), save_as_external_data=False
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(folder / "model")]
    command += ["--env-manager", "local", "--port", str(port), "--workers", "1"]
    log = (folder / "server.log").open("wb")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": path}
    server = subprocess.Popen(
        command, stdout=log, stderr=log, env=environment, cwd=folder, start_new_session=True
    )
    try:
        connection = _wait_for(server, port)
        body = json.dumps({"inputs": _tensors()})

        def ask(_: int) -> object:
            connection.request("POST", "/invocations", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"mlflow models serve: {answer.status} {said[:200]!r}")
            return said

        asking = Timed(ask, 10)

        def once() -> float:
            connection.close()  # the server hangs up after some idle seconds
            ask(0)
            return asking()

        yield once
    finally:
        if server.poll() is None:
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(timeout=20)
        log.close()


def _tensors() -> dict[str, Any]:
    given = reference_input()
    tensors: dict[str, Any] = {name: [values.tolist()] for name, values in given.windows.items()}
    return tensors | {"history": [[0.0, 5.0]], "context": [[73.0, 0.0, 1.0]]}


def _wait_for(server: subprocess.Popen[bytes], port: int) -> http.client.HTTPConnection:
    until = time.monotonic() + SERVER_S
    while time.monotonic() < until and server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/ping")
            if connection.getresponse().read() is not None:
                return connection
        except OSError:
            connection.close()
            time.sleep(0.3)
    raise RuntimeError("mlflow models serve did not come up")


@contextmanager
def by_tsfresh(python: Path, folder: Path) -> Iterator[Callable[[], float]]:
    """A measurement (median µs of one window) by another interpreter."""
    script = folder / "tsfresh_peer.py"
    script.write_text(TSFRESH)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    peer = subprocess.Popen(
        [str(python), str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    send, receive = peer.stdin, peer.stdout
    try:
        if not receive.readline():
            raise RuntimeError(f"{python.name}: tsfresh could not be run")

        def once() -> float:
            send.write("3\n")
            send.flush()
            return float(receive.readline())

        yield once
    finally:
        send.close()
        peer.wait(timeout=20)


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    files = reference_files()
    engine = Engine(files)
    chain = Chain(engine)
    block, repeats = (50, 5) if options.quick else (500, 41)
    notes = {
        "method": f"one thread; medians of {repeats} rounds, arms in turns, {block} calls in a row each "
        "(durable and peers fewer)",
        "explain_extra_runs": "a device does not explain yet: no contributions are recorded",
        "graph": f"{', '.join(NAMES)} of {DIGEST}",
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="aiotkit-decide-")))
        plain = bare(engine, files)
        durable = Durable(chain, folder / "journal")
        stack.callback(durable.journal.close)
        timed = {
            "decide": Timed(chain.decide, block),
            "bare": Timed(plain, block),
            "durable": Timed(durable.once, max(10, block // 10)),
            "decide paced": Timed(chain.decide, max(5, block // 25), PACE_S),
            "bare paced": Timed(plain, max(5, block // 25), PACE_S),
        }
        arms: dict[str, Callable[[], float]] = dict(timed)
        if options.quick:
            notes["mlflow_serve_ms"] = "not started by --quick"
        else:
            progress("starting mlflow models serve")
            arms["mlflow"] = stack.enter_context(served(files, folder))
        if options.tsfresh is None:
            notes["tsfresh_ms"] = "no interpreter with tsfresh given: --tsfresh PYTHON"
        else:
            arms["tsfresh"] = stack.enter_context(by_tsfresh(options.tsfresh, folder))
        for arm in timed.values():  # warm-up
            arm()
            arm.all.clear()
        found = interleave(arms, repeats)
    report(
        "decide",
        _figures(found, timed),
        peers=_peers(found, timed, chain),
        targets={
            "p50_over_bare": "≤ 2.0",
            "p99_us": "≤ 1000",
            "overhead_p50_us": "≤ 60",
            "explain_extra_runs": "≤ 1",
        },
        notes=notes,
        options=options,
    )


def _figures(found: dict[str, list[float]], timed: dict[str, Timed]) -> dict[str, Figure]:
    decide = percentiles(timed["decide"].all, unit="us")
    durable = percentiles([us / 1e3 for us in timed["durable"].all], unit="ms")
    over = [a - b for a, b in zip(found["decide"], found["bare"], strict=True)]
    return {
        "p50_us": decide["p50_us"],
        "p99_us": decide["p99_us"],
        "p50_over_bare": median_ratio(found["decide"], found["bare"]),
        "overhead_p50_us": statistics.median(over),
        "paced_p50_over_bare": median_ratio(found["decide paced"], found["bare paced"]),
        "durable_p50_ms": durable["p50_ms"],
        "durable_p99_ms": durable["p99_ms"],
        "explain_extra_runs": None,
    }


def _peers(found: dict[str, list[float]], timed: dict[str, Timed], chain: Chain) -> dict[str, Any]:
    stages = [chain.engine.decide(*chain.steps[i % CHAIN])[1] for i in range(4 * CHAIN)]
    peers: dict[str, Any] = {
        "bare_p50_us": statistics.median(found["bare"]),
        "bare_p99_us": percentiles(timed["bare"].all, unit="us")["p99_us"],
        "paced_p50_us": statistics.median(timed["decide paced"].all),
        "paced_bare_p50_us": statistics.median(timed["bare paced"].all),
        **{f"stage_{name}_us": statistics.median(s[name] for s in stages) for name in stages[0]},
    }
    for name in ("mlflow", "tsfresh"):
        key = {"mlflow": "mlflow_serve_ms", "tsfresh": "tsfresh_ms"}[name]
        peers[key] = statistics.median(found[name]) / 1e3 if name in found else None
    return peers


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--tsfresh", type=Path, help="a Python interpreter with pandas, tsfresh and sklearn")
    main(parser.parse_args())
