"""Imports are a promise kept by machines: what a device loads, and what rules may know."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "aiotkit"
ON_DEVICE = {"numpy", "onnxruntime", "pydantic", "pydantic_core", "cryptography", "typing_extensions"}
DESK_ONLY = (
    "pandas", "torch", "mlflow", "sklearn", "deltalake", "pyarrow", "typer", "yaml", "matplotlib", "onnx",
)  # fmt: skip
#: modules with which a rule could read a clock, a file, a socket or chance
OUTSIDE = {"os", "time", "socket", "subprocess", "threading", "random", "secrets", "pathlib", "io", "asyncio"}


def imports(file):
    """Top-level names of all modules a file imports, wherever in it, except under TYPE_CHECKING."""
    for node in ast.walk(_without_type_checking(ast.parse(file.read_text()))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module


def _without_type_checking(tree):
    class Drop(ast.NodeTransformer):
        def visit_If(self, node):
            is_guard = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
            return None if is_guard else self.generic_visit(node)

    return Drop().visit(tree)


def modules(*parts):
    return [file for part in parts for file in sorted((PACKAGE / part).rglob("*.py"))]


def _name(file):
    return str(file.relative_to(PACKAGE))


@pytest.mark.parametrize("file", modules("core", "bundle", "edge"), ids=_name)
def test_a_device_module_imports_only_what_a_device_has(file):
    """core, bundle and edge know the standard library, four packages, and each other."""
    for module in imports(file):
        root, _, rest = module.partition(".")
        if root == "aiotkit":
            assert not rest or rest.split(".")[0] in ("core", "bundle", "edge", "__version__"), module
        else:
            assert root in sys.stdlib_module_names | ON_DEVICE, module


@pytest.mark.parametrize("file", modules("core"), ids=_name)
def test_a_rule_reads_no_clock_no_file_and_no_chance(file):
    """In core, time, files and randomness arrive as arguments."""
    assert {module.split(".")[0] for module in imports(file)} & OUTSIDE == set()
    calls = [n.attr for n in ast.walk(ast.parse(file.read_text())) if isinstance(n, ast.Attribute)]
    assert {"now", "utcnow", "today", "default_rng"} & set(calls) == set()


@pytest.mark.parametrize("module", ["aiotkit.edge.command", "aiotkit.edge.agent", "aiotkit.bundle.engine"])
def test_a_fresh_interpreter_loads_nothing_of_the_desk(module):
    """Importing what runs on a device pulls in no frame library, trainer or server."""
    code = f"import sys, {module}; print(*(m for m in {DESK_ONLY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_core_alone_needs_no_runtime():
    """The vocabulary can be read without onnxruntime and without cryptography."""
    names = ["aiotkit." + ".".join(f.relative_to(PACKAGE).with_suffix("").parts) for f in modules("core")]
    code = (
        "import sys, importlib; [importlib.import_module(m) for m in sys.argv[1:]];"
        "print(*(m for m in ('onnxruntime', 'cryptography') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
