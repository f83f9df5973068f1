"""How soon a device decides after power comes back, and what it weighs.

``aiotkit-edge run`` is started on a commissioned state folder with a signed, installed bundle; packets lie
ready on its pipe. Measured: from the start of the process to the credit for the packet that completed the
first window, which is given after that decision went through its gates and is durable; and the process's
peak memory at that moment. The floor, in turns with it: a script that imports onnxruntime, loads the same
graph and runs it once. Both run on one onnxruntime thread. ``install_mb`` is what the base install puts on
a disk besides onnxruntime, numpy and what only they need.
"""

from __future__ import annotations

import argparse
import os
import select
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from common import arguments, interleave, median_ratio, report
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from worlds.bundles import bundle_files  # noqa: E402 - tests/ is no package
from worlds.device import make_device, packet  # noqa: E402

from aiotkit.core.records import RecordType  # noqa: E402
from aiotkit.edge.disk import RealDisk  # noqa: E402
from aiotkit.edge.journal_verify import verify_folder  # noqa: E402
from aiotkit.edge.sources import encode_packet  # noqa: E402

FLOOR = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {i.name: numpy.zeros([1, i.shape[1]], numpy.float32) for i in session.get_inputs()})
print("done", flush=True)
sys.stdin.read()
"""
DEADLINE_S = 60.0
_LARGE = {"onnxruntime", "numpy"}


def first_line(command: list[str], given: bytes, wanted: bytes) -> tuple[float, float]:
    """(seconds until a process printed a line with ``wanted``, its peak memory in MB then)."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(given)
        process.stdin.flush()
        said = b""
        while wanted not in said:
            left = DEADLINE_S - (time.perf_counter() - start)
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                raise SystemExit(f"{command[-1]}: nothing within {DEADLINE_S:g} s; printed {said!r}")
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                raise SystemExit(f"{command} ended early; it printed {said!r}")
            said += part
        return time.perf_counter() - start, peak_mb(process.pid)
    finally:
        process.stdin.close()
        process.stdout.close()
        process.terminate()
        process.wait(timeout=10)


def peak_mb(pid: int) -> float:
    """The peak resident memory of a process so far (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SystemExit("this kernel does not tell VmHWM")


class Starts:
    """The two arms, and the memory each needed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.rounds = folder, 0
        self.graph = folder / "graph.onnx"
        self.graph.write_bytes(bundle_files()["graph.onnx"])
        self.memory: dict[str, list[float]] = {"device": [], "floor": []}

    def device(self) -> float:
        """One cold start on a device that was never run; gives seconds."""
        self.rounds += 1
        state = make_device(self.folder / f"device-{self.rounds}", actuator=None)
        config = state / "device.json"
        config.write_text(config.read_text().replace('"format"', '"actuator": null, "format"'))
        packets = [packet(i) for i in range(4)]
        given = b"".join(map(encode_packet, packets))
        wanted = f'{{"done":{packets[0].at_us}}}'.encode()
        seconds, memory = first_line(
            [sys.executable, "-m", "aiotkit.edge.command", "run", "--state", str(state)], given, wanted
        )
        self.memory["device"].append(memory)
        verified = verify_folder(RealDisk(state))
        if not verified.counts.get(RecordType.DECISION.name):
            raise SystemExit("the device gave credit without a decision in its journal")
        return seconds

    def floor(self) -> float:
        """The same graph, loaded and run once by a bare script; gives seconds."""
        seconds, memory = first_line([sys.executable, "-c", FLOOR, str(self.graph)], b"", b"done")
        self.memory["floor"].append(memory)
        return seconds


def installed(root: str) -> dict[str, float]:
    """Package -> MB on disk, of everything a package leads to without extras, itself included."""
    found: dict[str, float] = {}
    todo = [root]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform
        files = package.files or []
        paths = (Path(str(package.locate_file(file))) for file in files)
        found[name] = sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
        for line in package.requires or ():
            below = Requirement(line)
            if below.marker is None or below.marker.evaluate({"extra": ""}):
                todo.append(below.name.lower().replace("_", "-"))
    return found


def main(options: argparse.Namespace) -> None:
    """Measure and report."""
    repeats = 3 if options.quick else 11
    with tempfile.TemporaryDirectory() as folder:
        starts = Starts(Path(folder))
        starts.device()  # warm the file cache and compiled modules
        starts.floor()
        found = interleave({"device": starts.device, "floor": starts.floor}, repeats)
    memory = {name: statistics.median(values) for name, values in starts.memory.items()}
    base = installed("aiotkit")
    runtime = {name for large in _LARGE for name in installed(large)}
    ours = {name: mb for name, mb in base.items() if name not in runtime}
    ours["aiotkit"] = sum(p.stat().st_size for p in (ROOT / "aiotkit").rglob("*.py*")) / 1e6
    figures = {
        "seconds": statistics.median(found["device"]),
        "over_floor": median_ratio(found["device"], found["floor"]),
        "rss_over_floor_mb": memory["device"] - memory["floor"],
        "install_mb": sum(ours.values()),
    }
    report(
        "coldstart",
        figures,
        peers={
            "floor_seconds": statistics.median(found["floor"]),
            "rss_mb": memory["device"],
            "floor_rss_mb": memory["floor"],
            "runtime_install_mb": sum(mb for name, mb in base.items() if name in runtime),
            **{f"install_mb {name}": mb for name, mb in sorted(ours.items(), key=lambda x: -x[1])[:6]},
        },
        targets={
            "seconds": "≤ 2",
            "over_floor": "≤ 1.5",
            "rss_over_floor_mb": "≤ 60",
            "install_mb": "≤ 40",
        },
        notes={
            "method": f"medians of {repeats} interleaved starts, file cache and compiled modules warm",
            "runtime_install_mb": f"onnxruntime, numpy and what they need: {', '.join(sorted(runtime))}",
        },
        options=options,
    )


if __name__ == "__main__":
    main(arguments(__doc__).parse_args())
