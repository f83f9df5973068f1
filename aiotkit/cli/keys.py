"""``aiotkit keys``: make signing keys and the trust file devices are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from aiotkit.bundle.keys import PublicKey
    from aiotkit.bundle.trust import Role

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make signing keys and the trust file devices are given.",
)

_NEW = """Make an ed25519 key: FILE (private, mode 0600) and FILE with suffix .pub beside it.

The private file stays with its holder; the .pub file goes into the trust file.

\b
Example:
  aiotkit keys new alice.pem
"""
_TRUST = """Write the trust file: which keys may release bundles, answer for operators, and collect journals.

It is put on devices when they are commissioned. How many different keys a role needs is said with
--threshold; by default all of the release keys, one of every other role.

\b
Examples:
  aiotkit keys trust trust.json --release alice.pub --release bob.pub --operator shift.pub --collector hq.pub
  aiotkit keys trust trust.json --release a.pub --release b.pub --release c.pub --threshold release=2
"""

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]
PublicOption = list[Path] | None


@app.command(help=_NEW)
def new(
    file: Annotated[Path, typer.Argument(help="Where the private key goes, for example alice.pem.")],
    as_json: JsonOption = False,
) -> None:
    """Make a key pair."""
    from aiotkit.bundle.keys import SigningKey, write_public
    from aiotkit.cli.output import say

    public_file = file.with_suffix(".pub")
    key = SigningKey.generate()
    write_public(key.public, public_file)
    try:
        key.save(file)
    except BaseException:
        public_file.unlink()
        raise
    data = {"private": file, "public": public_file, "key_id": key.public.key_id}
    words = f"private key: {file}\npublic key:  {public_file}\nkey id:      {key.public.key_id}"
    say(data, words, as_json)


@app.command(help=_TRUST)
def trust(
    file: Annotated[Path, typer.Argument(help="Where the trust file goes.")],
    release: Annotated[PublicOption, typer.Option(help="Public key that may release bundles.")] = None,
    operator: Annotated[PublicOption, typer.Option(help="Public key of an operator.")] = None,
    collector: Annotated[PublicOption, typer.Option(help="Public key of a collector.")] = None,
    approval: Annotated[PublicOption, typer.Option(help="Public key that may approve candidates.")] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(help="ROLE=N: signatures by N different keys are needed.")
    ] = None,
    version: Annotated[int, typer.Option(min=1, help="Grows with every change of the file.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Write a trust file."""
    from aiotkit.bundle.keys import read_public
    from aiotkit.bundle.trust import make_trust
    from aiotkit.cli.output import say

    given: dict[Role, Sequence[Path]] = {
        "release": release or (),
        "operator": operator or (),
        "collector": collector or (),
        "approval": approval or (),
    }
    keys = {role: [read_public(path) for path in paths] for role, paths in given.items() if paths}
    comments = {
        key.key_id: path.stem for role in keys for key, path in zip(keys[role], given[role], strict=True)
    }
    needed = _thresholds(threshold or (), keys)
    made = make_trust({role: (keys[role], needed[role]) for role in keys}, version=version, comments=comments)
    file.write_bytes(made.canonical())
    roles = {role: {"keys": list(r.key_ids), "threshold": r.threshold} for role, r in made.roles.items()}
    lines = [f"{role}: {r.threshold} of {len(r.key_ids)} keys" for role, r in made.roles.items()]
    say({"trust": file, "roles": roles}, "\n".join([f"trust file: {file}", *lines]), as_json)


def _thresholds(words: Sequence[str], keys: Mapping[Role, Sequence[PublicKey]]) -> dict[Role, int]:
    needed = {role: len(found) if role == "release" else 1 for role, found in keys.items()}
    by_name = {str(role): role for role in keys}
    for word in words:
        name, equals, number = word.partition("=")
        if not equals or not number.isdecimal() or name not in by_name:
            raise typer.BadParameter(f"{word!r} is not ROLE=N with one of {', '.join(by_name)}")
        needed[by_name[name]] = int(number)
    return needed
