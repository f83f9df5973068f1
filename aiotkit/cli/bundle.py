"""``aiotkit bundle``: build, sign, verify and look into bundles."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aiotkit.bundle.manifest import Manifest
    from aiotkit.bundle.unsigned import Places

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Build, sign, verify and look into bundles."
)

_BUILD = """Build the unsigned bundle of a decision file. The same inputs give the same bytes.

The release counter must be higher than that of every release before: devices never go back.

\b
Examples:
  aiotkit bundle build pump.yaml --counter 1 --out pump.aiot
  aiotkit bundle build pump.yaml --counter 7 --hardware aarch64 --site hall-1 --site hall-2 --out pump.aiot
"""
_SIGN = """Add a signature by each key. Its golden cases must be decided here as where it was built.

\b
Example:
  aiotkit bundle sign pump.aiot --key alice.pem --out pump-signed.aiot
"""
_VERIFY = """Verify signatures, files and golden cases; with --decision, --hardware, --site also the place.

Exit code 1 when the bundle must not be used.

\b
Examples:
  aiotkit bundle verify pump.aiot --trust trust.json
  aiotkit bundle verify pump.aiot --trust trust.json --hardware aarch64 --site hall-1 --floor 3
"""
_INSPECT = """Show what is in a bundle. Its integrity is checked, its signatures are only listed.

\b
Examples:
  aiotkit bundle inspect pump.aiot
  aiotkit bundle inspect pump.aiot --file card.json
"""

FileArgument = Annotated[Path, typer.Argument(help="The bundle (.aiot).")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]


@app.command(help=_BUILD)
def build(
    decision: Annotated[Path, typer.Argument(help="The decision file (YAML).")],
    counter: Annotated[int, typer.Option(min=1, help="Release counter; higher than any before.")],
    out: Annotated[Path, typer.Option(help="Where the bundle goes (.aiot).")],
    hardware: Annotated[list[str] | None, typer.Option(help="Machine name, as uname -m (any).")] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="Site name; 'any' for all (the decision's own).")
    ] = None,
    own_words: Annotated[
        Path | None, typer.Option(help="Python file with words of your own (x_…) that the decision reads.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Build an unsigned bundle."""
    from aiotkit.cli.output import say
    from aiotkit.lab.decision_file import read_decision
    from aiotkit.lab.own_words import own_words as read_words
    from aiotkit.release.bundle import build_bundle

    made = build_bundle(
        read_decision(decision),
        release_counter=counter,
        hardware=_places(hardware) or "any",
        site=_places(site),
        words=None if own_words is None else read_words(own_words),
    )
    write_whole(out, made.archive())
    data = {"bundle": out, "digest": made.digest, "manifest": made.manifest.model_dump(mode="json")}
    say(data, f"{out}: {made.digest}\nunsigned; next: aiotkit bundle sign {out} --key KEY.pem", as_json)


def _places(names: Sequence[str] | None) -> Places | None:
    if not names:
        return None
    return "any" if list(names) == ["any"] else tuple(names)


@app.command(help=_SIGN)
def sign(
    file: FileArgument,
    key: Annotated[list[Path], typer.Option("--key", help="Signing key (PEM); may be given several times.")],
    out: Annotated[Path | None, typer.Option(help="Where the signed bundle goes (in place).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Add signatures."""
    from aiotkit.bundle.keys import SigningKey
    from aiotkit.bundle.unsigned import read_unsigned, sign_archive
    from aiotkit.cli.output import say

    keys = [SigningKey.load(path) for path in key]
    signed = sign_archive(file.read_bytes(), keys)
    target = out or file
    write_whole(target, signed)
    unsigned, envelope = read_unsigned(signed)
    ids = [signature.key_id for signature in envelope.signatures]
    lines = [f"{target}: {unsigned.digest}", *(f"signed by {key_id}" for key_id in ids)]
    say({"bundle": target, "digest": unsigned.digest, "signed_by": ids}, "\n".join(lines), as_json)


@app.command(help=_VERIFY)
def verify(
    file: FileArgument,
    trust: Annotated[Path, typer.Option(help="The trust file (trust.json).")],
    decision: Annotated[str | None, typer.Option(help="Id of the decision it must be for.")] = None,
    hardware: Annotated[str | None, typer.Option(help="Machine it must be for (uname -m).")] = None,
    site: Annotated[str | None, typer.Option(help="Site it must be for.")] = None,
    floor: Annotated[int, typer.Option(min=0, help="Lowest release counter that is accepted.")] = 0,
    golden: Annotated[bool, typer.Option(help="Run its golden cases here.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Verify a bundle."""
    import aiotkit
    from aiotkit.bundle.engine import Engine
    from aiotkit.bundle.golden import run_golden
    from aiotkit.bundle.trust import parse_trust
    from aiotkit.bundle.verify import Expectation, check_floor, check_place, verify_signed
    from aiotkit.cli.output import say

    bundle = verify_signed(file.read_bytes(), parse_trust(trust.read_bytes()))
    manifest = bundle.manifest
    here = Expectation(
        decision or manifest.decision.id,
        hardware or _first(manifest.hardware),
        site or _first(manifest.site),
        aiotkit.__version__,
        floor,
    )
    check_place(manifest, here)
    check_floor(manifest, floor)
    cases = run_golden(Engine(bundle.files), bundle.files) if golden else 0
    data = {"bundle": file, "digest": bundle.digest, "valid": True, "golden_cases": cases}
    told = (
        f"{cases} golden cases are decided here as where it was built" if golden else "golden cases not run"
    )
    say(data, f"valid: {bundle.digest}\n{_words(manifest)}\n{told}", as_json)


def _first(places: Places) -> str:
    return "any" if isinstance(places, str) else places[0]


@app.command(help=_INSPECT)
def inspect(
    file: FileArgument,
    path: Annotated[str | None, typer.Option("--file", help="Print this JSON file of the bundle.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is in a bundle."""
    import json

    from aiotkit.bundle.unsigned import read_unsigned
    from aiotkit.cli.output import say
    from aiotkit.core.errors import BundleError, did_you_mean

    unsigned, envelope = read_unsigned(file.read_bytes())
    readable = [name for name in unsigned.files if name.endswith(".json")]
    if path is not None:
        if path not in readable:
            raise BundleError(
                f"{file}: no JSON file '{path}'",
                expected=", ".join(readable),
                do=did_you_mean(path, readable),
            )
        document = json.loads(unsigned.files[path])
        say(document, json.dumps(document, indent=2, ensure_ascii=False), as_json)
        return
    ids = [signature.key_id for signature in envelope.signatures]
    data: dict[str, Any] = {
        "digest": unsigned.digest,
        "manifest": unsigned.manifest.model_dump(mode="json"),
        "signed_by": ids,
        "card": json.loads(unsigned.files["card.json"]) if "card.json" in unsigned.files else None,
    }
    lines = [f"bundle {unsigned.digest}", _words(unsigned.manifest)]
    lines += [f"  {name:16} {f.size:>9} bytes" for name, f in sorted(unsigned.manifest.files.items())]
    lines += [f"signature by {key_id} (not verified)" for key_id in ids] or ["unsigned"]
    say(data, "\n".join(lines), as_json)


def _words(manifest: Manifest) -> str:
    hardware, site = (
        places if isinstance(places, str) else ", ".join(places)
        for places in (manifest.hardware, manifest.site)
    )
    decision = manifest.decision
    return (
        f"decision '{decision.id}' revision {decision.revision}, release {manifest.release_counter}, "
        f"for hardware {hardware}, site {site}, aiotkit {manifest.min_runtime} or newer"
    )


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is whole or not there: aside, synced, then put in place."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
