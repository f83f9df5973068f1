"""The entry point ``aiotkit``: turns every deliberate error into one line and an exit code."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence

from aiotkit.cli.nouns import NOUNS, Noun
from aiotkit.cli.output import say_error
from aiotkit.core.errors import AiotkitError

INTERRUPTED = 130
BUG = 70


class UsageProblem(AiotkitError):
    """The command line itself cannot be understood."""


class MissingExtra(AiotkitError):
    """A package that this command needs is not part of what was installed."""

    exit_code = 3


class PlaceError(AiotkitError):
    """The operating system refused: a file, folder or socket."""

    exit_code = 3


def main(argv: Sequence[str] | None = None, nouns: Mapping[str, Noun] = NOUNS) -> int:
    """Run a command line and return its exit code; nothing escapes.

    Args:
        argv: the words after ``aiotkit``; default: those of this process.
        nouns: the commands there are.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    try:
        return _run(words, nouns)
    except AiotkitError as error:
        say_error(error, as_json)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - the process entry point: whatever is left is a bug
        traceback.print_exc()
        print("error: this is a bug in aiotkit; please report it with the lines above", file=sys.stderr)
        return BUG


def _run(words: list[str], nouns: Mapping[str, Noun]) -> int:
    if importlib.util.find_spec("typer") is None:
        raise MissingExtra(
            "aiotkit",
            expected="the workbench extra",
            found="the device's base install",
            do="pip install 'aiotkit[workbench]'; the device's own command is aiotkit-edge.",
        )
    import typer.main

    from aiotkit.cli.app import build

    try:
        command = typer.main.get_command(build(words, nouns))
        code = command.main(args=words, prog_name="aiotkit", standalone_mode=False)
    except typer.TyperException as error:
        return _usage(error)
    except typer.Abort:
        return INTERRUPTED
    except ModuleNotFoundError as error:
        raise _missing(error) from error
    except OSError as error:
        where = f" '{error.filename}'" if error.filename else ""
        raise PlaceError(f"{error.strerror or error}{where}") from error
    return code if isinstance(code, int) else 0


def _usage(error: Exception) -> int:
    """Say what is wrong with a command line; help that was shown instead of running needs no words."""
    context = getattr(error, "ctx", None)
    message = str(getattr(error, "message", error)).strip()
    formatted = getattr(error, "format_message", lambda: message)().strip()
    path = context.command_path if context is not None else "aiotkit"
    if type(error).__name__ == "NoArgsIsHelpError":
        print(message)
        return UsageProblem.exit_code
    hint = "" if formatted.endswith("?") else f"See '{path} --help'."
    raise UsageProblem(formatted.rstrip("."), do=hint) from error


def _missing(error: ModuleNotFoundError) -> AiotkitError:
    name = (error.name or "").partition(".")[0]
    if name in ("", "aiotkit"):
        raise error
    return MissingExtra(
        f"this command needs '{name}'",
        expected="the workbench extra",
        do="pip install 'aiotkit[workbench]'",
    )


if __name__ == "__main__":
    sys.exit(main())
