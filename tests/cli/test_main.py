"""The entry point: one line for an error, honest exit codes, nothing imported that is not needed."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module

import pytest

import aiotkit
from aiotkit.cli.main import main
from aiotkit.cli.nouns import NOUNS, Noun

pytestmark = pytest.mark.desk
TROUBLE = {"trouble": Noun("worlds.trouble", "Ways to end.")}


def run(*words):
    return main(words, TROUBLE)


def test_a_command_that_ends_well_says_so_in_words_or_as_json(capsys):
    """Exit code 0, and the same answer for people and for programs."""
    assert run("trouble", "well") == 0
    assert capsys.readouterr().out == "the answer is 42\n"
    assert run("trouble", "well", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"answer": 42}


def test_a_negative_answer_is_exit_code_1(capsys):
    """The answer is printed like any other; the code tells it apart."""
    assert run("trouble", "no") == 1
    assert capsys.readouterr().out == "they differ\n"


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("data", 2, "error: column 'vib'; expected numbers; found words. Name another column."),
        ("chain", 1, "error: record 7; expected a; found b"),
        ("disk", 3, "error: Not a directory '/dev/null/x'"),
        (
            "extra",
            3,
            "error: this command needs 'a_package_nobody_has'; expected the workbench extra. "
            "pip install 'aiotkit[workbench]'",
        ),
    ],
)
def test_an_error_is_one_line_on_stderr_and_its_own_exit_code(command, code, line, capsys):
    """1 = the answer is no, 2 = the input is wrong, 3 = the place is; no traceback."""
    assert run("trouble", command) == code
    out, err = capsys.readouterr()
    assert (out, err) == ("", line + "\n")


def test_an_error_for_a_program_is_a_json_document(capsys):
    """With --json the parts of the error can be read apart."""
    assert run("trouble", "data", "--json") == 2
    out, err = capsys.readouterr()
    assert err == ""
    assert json.loads(out) == {
        "error": "column 'vib'; expected numbers; found words. Name another column.",
        "exit_code": 2,
        "kind": "DataError",
        "what": "column 'vib'",
        "expected": "numbers",
        "found": "words",
        "do": "Name another column.",
    }


def test_an_interrupted_command_ends_with_130(capsys):
    """Ctrl-C is neither success nor a bug."""
    assert run("trouble", "interrupted") == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_shows_where_and_is_called_one(capsys):
    """What nobody foresaw keeps its traceback and has a code of its own."""
    assert run("trouble", "bug") == 70
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in err
    assert err.endswith("error: this is a bug in aiotkit; please report it with the lines above\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["truoble"], "error: No such command 'truoble'. Did you mean 'trouble'?"),
        (["zebra"], "error: No such command 'zebra'. See 'aiotkit --help'."),
        (["trouble", "wel"], "error: No such command 'wel'. Did you mean 'well'?"),
        (
            ["--vrsion"],
            "error: No such option: --vrsion (Possible options: --version). See 'aiotkit --help'.",
        ),
        (
            ["trouble", "well", "x"],
            "error: Got unexpected extra argument(s) (x). See 'aiotkit trouble well --help'.",
        ),
    ],
)
def test_a_misspelt_command_line_gets_a_hint(words, line, capsys):
    """Usage errors are exit code 2 and name what was probably meant, or where to look."""
    assert run(*words) == 2
    assert capsys.readouterr().err == line + "\n"


def test_a_noun_without_a_verb_shows_what_it_can_do(capsys):
    """Help that was not asked for is still a usage error to a script."""
    assert run("trouble") == 2
    assert "End in an error of the input." in capsys.readouterr().out


def test_the_version_is_the_packages(capsys):
    """``aiotkit --version`` and the package agree."""
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{aiotkit.__version__}\n"


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_help_lists_every_noun(words, capsys):
    """A person sees all there is, each with its line."""
    assert main(words) == 0
    out = capsys.readouterr().out
    for name, noun in NOUNS.items():
        assert f"  {name}" in out
        assert noun.summary in out


@pytest.mark.parametrize("name", NOUNS)
def test_every_noun_is_there_and_explains_itself(name, capsys):
    """Each listed noun has a module with commands, and its help says how to use it."""
    module = import_module(NOUNS[name].module)
    assert hasattr(module, "app") or hasattr(module, "command")
    assert main([name, "--help"]) == 0
    assert f"Usage: aiotkit {name}" in capsys.readouterr().out


def test_help_imports_nothing_heavy():
    """A fresh ``aiotkit --help`` loads no numpy, pandas, torch or any noun, so it is there at once."""
    code = (
        "import sys; from aiotkit.cli.main import main; main(['--help']);"
        "print(*sorted(m for m in sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    heavy = {"numpy", "pandas", "torch", "mlflow", "sklearn", "matplotlib", "onnxruntime", "pydantic", "rich"}
    assert loaded & (heavy | {noun.module for noun in NOUNS.values()}) == set()


def test_the_device_is_told_which_command_is_its_own():
    """On the base install ``aiotkit`` says in one line what is missing and what to use instead."""
    code = (
        "import sys; sys.modules['typer'] = None; from aiotkit.cli.main import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr == (
        "error: aiotkit; expected the workbench extra; found the device's base install. "
        "pip install 'aiotkit[workbench]'; the device's own command is aiotkit-edge.\n"
    )
