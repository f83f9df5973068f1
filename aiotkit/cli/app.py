"""The desk's command as a Typer application in which only the noun at hand is imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

import typer

import aiotkit
from aiotkit.cli.nouns import Noun

_HELP = """From a decision to a signed bundle that decides on an edge device, and back with what happened.

\b
Begin with:
  aiotkit init                    write a decision file to start from
  aiotkit decision check FILE     every problem of a decision file, in words
  aiotkit demo                    the whole loop on this machine

\b
Every command takes --json. Exit codes: 0 done, 1 the answer is no, 2 the input is wrong,
3 the place is (disk, folder, process); "run" adds 4 the gates refused, 5 another run is at work. The device
has a command of its own: aiotkit-edge.
"""


def build(argv: Sequence[str], nouns: Mapping[str, Noun]) -> typer.Typer:
    """The application for a command line: the noun it names is real, the others are only listed.

    Raises whatever importing the noun's module raises.
    """
    app = typer.Typer(
        name="aiotkit",
        help=_HELP,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        invoke_without_command=True,
    )
    app.callback()(_root)
    wanted = next((word for word in argv if not word.startswith("-")), None)
    for name, noun in nouns.items():
        if name == wanted:
            _attach(app, name, noun)
        else:
            app.command(name, help=noun.summary)(_listed_only(name))
    return app


def _attach(app: typer.Typer, name: str, noun: Noun) -> None:
    module = import_module(noun.module)
    several: typer.Typer | None = getattr(module, "app", None)
    if several is not None:
        app.add_typer(several, name=name, short_help=noun.summary)
    else:
        app.command(name, short_help=noun.summary)(module.command)


def _listed_only(noun: str) -> Callable[[], None]:
    def command() -> None:
        raise AssertionError(f"'{noun}' was not imported")  # the wanted noun is always attached

    return command


def _root(
    context: typer.Context,
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        print(aiotkit.__version__)
        raise typer.Exit(0)
    if context.invoked_subcommand is None:
        print(context.get_help())
