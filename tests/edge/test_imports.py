from __future__ import annotations

import json
import subprocess
import sys

from worlds.device import edge, make_device, packet, write_packets

DESK = (
    "pandas",
    "torch",
    "mlflow",
    "sklearn",
    "scipy",
    "yaml",
    "deltalake",
    "pyarrow",
    "typer",
    "matplotlib",
)


def loaded(state, *arguments: str) -> set[str]:
    """Which modules a fresh interpreter has after a command of the device."""
    code = (
        "import sys, json, threading\n"
        "from aiotkit.edge.command import main\n"
        "code = main(sys.argv[1:])\n"
        "assert code == 0, code\n"
        "print(json.dumps(sorted({m.partition('.')[0] for m in sys.modules})), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--state", str(state)], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr.decode()
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_a_whole_run_loads_nothing_from_the_desk(tmp_path):
    """Deciding, journaling and delivering need numpy, onnxruntime, pydantic and cryptography, no more."""
    state = make_device(tmp_path, source="file:packets")
    write_packets(state / "packets", [packet(i) for i in range(3)])
    modules = loaded(state, "run", "--drain-s", "0")
    assert not modules & set(DESK)
    assert "onnxruntime" in modules  # it did decide
    assert json.loads((state / "health.json").read_text())["decided"] == 3


def test_importing_the_command_loads_no_package_at_all():
    """--help and a stop answer at once: nothing is imported before it is needed."""
    code = "import sys, aiotkit.edge.command; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not set(out.split()) & {"numpy", "onnxruntime", "pydantic", "cryptography", *DESK}


def test_the_actuator_process_is_small():
    """It loads neither numpy nor onnxruntime nor cryptography: a small process of its own."""
    code = "import sys, aiotkit.edge.actuator; print(' '.join(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert not set(out.split()) & {"numpy", "onnxruntime", "cryptography", *DESK}


def test_help_has_examples():
    """aiotkit-edge --help shows how each command is called."""
    process = edge("--help", stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"aiotkit-edge override run" in out
