"""``aiotkit replay``: take recorded decisions again and compare them bit by bit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aiotkit.bundle.engine import Engine
    from aiotkit.bundle.replay import Recorded, Replay
    from aiotkit.bundle.unsigned import Unsigned
    from aiotkit.lake.lake import Lake

JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document instead of words.")]
#: how many windows back a decision may refer (an operator's answer decides again on the last one)
WINDOWS_KEPT = 64
MAX_LISTED = 20


def command(
    bundle: Annotated[list[Path], typer.Option("--bundle", help="A bundle (.aiot); several may be given.")],
    journal: Annotated[Path | None, typer.Option(help="A device's state or journal folder.")] = None,
    lake: Annotated[str | None, typer.Option(help="Folder or object-store URI of the lake.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Take every recorded decision again and compare it bit by bit.

    Each record names the digest of the bundle that decided; it is replayed with that one of the bundles
    given. Where windows may not leave the device, replay runs there, on its journal. Exit code 1 when a
    decision differs, a record is damaged, or nothing could be replayed at all.

    \b
    Examples:
      aiotkit replay --journal state --bundle pump.aiot
      aiotkit replay --lake lake --bundle pump-1.aiot --bundle pump-2.aiot --json
    """  # noqa: D301 - a real backspace: it keeps Typer from wrapping the examples
    from tqdm import tqdm

    from aiotkit.bundle.replay import replay_all
    from aiotkit.cli.output import say

    if (journal is None) == (lake is None):
        raise typer.BadParameter("give either --journal or --lake")
    shelf = _Shelf(bundle)
    damage: list[str] = []
    records = lake_records(lake) if lake is not None else journal_records(journal or Path(), damage)
    with tqdm(desc="replay", unit=" decisions", delay=2, disable=True if as_json else None) as bar:
        result = replay_all(records, shelf.engine, bar.update)
    say(_as_data(result, damage), _words(result, damage), as_json)
    if result.different or damage or not result.identical:
        raise typer.Exit(1)


class _Shelf:
    """The bundles at hand by digest; an engine is made when a record first asks for it."""

    def __init__(self, paths: Sequence[Path]) -> None:
        from aiotkit.bundle.unsigned import read_unsigned

        found = [read_unsigned(path.read_bytes())[0] for path in paths]
        self._bundles: dict[str, Unsigned] = {bundle.digest: bundle for bundle in found}
        self._engines: dict[str, Engine] = {}

    def engine(self, digest: str) -> Engine | None:
        """The engine of a bundle, None when it was not given."""
        from aiotkit.bundle.engine import Engine

        if digest not in self._engines and digest in self._bundles:
            self._engines[digest] = Engine(self._bundles[digest].files)
        return self._engines.get(digest)


def journal_records(path: Path, damage: list[str]) -> Iterator[Recorded]:
    """The decision records of a journal on disk, oldest first; nothing is written or locked.

    Args:
        path: a device's state folder, or its journal folder.
        damage: gets a line for every run of records that cannot be read.
    """
    from aiotkit.bundle.replay import Recorded
    from aiotkit.core.errors import StorageError
    from aiotkit.core.records import RecordType
    from aiotkit.edge.disk import RealDisk
    from aiotkit.edge.journal_files import look, walk
    from aiotkit.edge.segments import Damage

    folder = path / "journal" if (path / "journal").is_dir() else path
    if not folder.is_dir():
        raise StorageError(f"journal {path}", expected="a folder", found="none")
    found = look(RealDisk(folder.resolve().parent), folder.resolve().name)
    if found is None:
        raise StorageError(f"journal {folder}", expected="a journal's segments", found="none")
    owner = found.identity
    windows: OrderedDict[str, bytes | None] = OrderedDict()
    for _, item in walk(found, found.segments):
        if isinstance(item, Damage):
            if item.last is not None:  # otherwise a tail that was never acknowledged
                damage.append(f"records {item.first} to {item.last}: {item.why}")
            continue
        for frame in item.frames:
            name = f"sha256:{frame.digest.hex()}"
            if frame.type is RecordType.WINDOW:
                windows[name] = frame.payload
                if len(windows) > WINDOWS_KEPT:
                    windows.popitem(last=False)
            elif frame.type is RecordType.DECISION:
                label = f"{owner.device}/{owner.journal_id}/{frame.seq}"
                window = windows.get(_window_of(frame.payload))
                yield Recorded(label, frame.payload, window, name)


def lake_records(uri: str) -> Iterator[Recorded]:
    """The decision records of a lake, with the windows that were let go; in no promised order."""
    from aiotkit.lake.lake import Lake

    lake = Lake.open(uri)
    columns = ["device", "journal_id", "seq", "digest", "payload", "window"]
    for batch in lake.batches("decisions", columns=columns, where=[("type", "=", "DECISION")]):
        for start in range(0, batch.num_rows, 1000):
            yield from _with_windows(lake, batch.slice(start, 1000).to_pylist())


def _with_windows(lake: Lake, rows: Sequence[dict[str, Any]]) -> Iterator[Recorded]:
    from aiotkit.bundle.replay import Recorded
    from aiotkit.lake.blobs import Blobs

    blobs = Blobs(lake)
    windows = blobs.get(blobs.find({row["window"] for row in rows if row["window"]}))
    for row in rows:
        payload = None if row["payload"] is None else row["payload"].encode()
        name = f"{row['device']}/{row['journal_id']}/{row['seq']}"
        yield Recorded(name, payload, windows.get(row["window"]), row["digest"])


def _window_of(payload: bytes | None) -> str:
    from aiotkit.bundle.replay import parse_record
    from aiotkit.core.errors import ReplayError

    try:
        return "" if payload is None else str(parse_record(payload)["in"]["window"])
    except ReplayError:
        return ""


def _as_data(result: Replay, damage: Sequence[str]) -> dict[str, Any]:
    return {
        "checked": result.checked,
        "identical": result.identical,
        "different": len(result.different),
        "not_replayable": dict(sorted(result.not_replayable.items())),
        "damage": list(damage),
        "differences": {
            name: [asdict(difference) for difference in found]
            for name, found in list(result.different.items())[:MAX_LISTED]
        },
    }


def _words(result: Replay, damage: Sequence[str]) -> str:
    lines = [f"{result.checked} decisions: {result.identical} identical, {len(result.different)} different"]
    for name, found in list(result.different.items())[:MAX_LISTED]:
        lines.append(f"  {name}")
        lines += [f"    {d.where}: recorded {d.recorded!r}, replayed {d.replayed!r}" for d in found[:3]]
    lines += [f"not replayable: {n} ({reason})" for reason, n in sorted(result.not_replayable.items())]
    lines += [f"damaged: {line}" for line in damage]
    if not result.identical:
        lines.append("nothing could be replayed: are these the bundles that decided?")
    return "\n".join(lines)
