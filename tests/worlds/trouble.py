"""A noun whose commands end in every way a command can end."""

from __future__ import annotations

import typer

from aiotkit.cli.output import say
from aiotkit.core.errors import ChainError, DataError

app = typer.Typer(help="Ways to end.", no_args_is_help=True)
AS_JSON = typer.Option(False, "--json", help="One JSON document.")


@app.command()
def well(as_json: bool = AS_JSON) -> None:
    """End well."""
    say({"answer": 42}, "the answer is 42", as_json)


@app.command()
def no(as_json: bool = AS_JSON) -> None:
    """End with a negative answer."""
    say({"same": False}, "they differ", as_json)
    raise typer.Exit(1)


@app.command()
def data(as_json: bool = AS_JSON) -> None:
    """End in an error of the input."""
    raise DataError("column 'vib'", expected="numbers", found="words", do="Name another column.")


@app.command()
def chain() -> None:
    """End in a failed check."""
    raise ChainError("record 7", expected="a", found="b")


@app.command()
def interrupted() -> None:
    """End as if a person had pressed Ctrl-C."""
    raise KeyboardInterrupt


@app.command()
def disk() -> None:
    """End in a refusal of the operating system."""
    open("/dev/null/x")  # noqa: SIM115, PTH123


@app.command()
def extra() -> None:
    """Need a package nobody has."""
    import a_package_nobody_has  # noqa: F401


@app.command()
def bug() -> None:
    """End in a mistake of ours."""
    raise ZeroDivisionError("division by zero")
