"""Decide again from what was recorded, and compare bit for bit.

On the same class of processor a replay gives the same bytes; a difference means that the record, the
window or the bundle is not what it was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from aiotkit.bundle.document import parse_json
from aiotkit.bundle.engine import Engine
from aiotkit.core.canonical import JSON, canonical_bytes, digest
from aiotkit.core.errors import EngineError, ReplayError
from aiotkit.core.records import FORMAT, input_from_json, unpack_windows

MAX_DIFFERENCES = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is not what was recorded: where (``out.features.vib.rms``), and both values."""

    where: str
    recorded: JSON
    replayed: JSON


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay found."""

    identical: bool
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Recorded:
    """A decision record to check: its name, its payload and its window (None where withheld).

    ``promised``: the digest of the payload in the journal's chain, where the source knows it.
    """

    name: str
    payload: bytes | None
    window: bytes | None
    promised: str | None = None


@dataclass(slots=True)
class Replay:
    """The outcome over many records: ``checked = identical + different + not replayable``."""

    identical: int = 0
    different: dict[str, tuple[Difference, ...]] = field(default_factory=dict)
    not_replayable: Counter[str] = field(default_factory=Counter)

    @property
    def checked(self) -> int:
        """How many records were looked at."""
        return self.identical + len(self.different) + self.not_replayable.total()


def replay_record(engine: Engine, payload: bytes, window: bytes | None) -> Replayed:
    """Decide again what a record says was decided.

    Args:
        engine: of the bundle that the record names.
        payload: the decision record's bytes.
        window: the bytes its window digest stands for, or None where they are withheld.

    Raises:
        ReplayError: it is no decision record of a known format, or the window is not here.
    """
    record = parse_record(payload)
    if window is None:
        raise ReplayError("window withheld")
    promised = record["in"]["window"]
    if digest(window) != promised:
        return Replayed(False, (Difference("in.window", promised, digest(window)),))
    try:
        given, state = input_from_json(record["in"], unpack_windows(window))
    except (EngineError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReplayError("input damaged", found=repr(error)) from error
    decided, _ = engine.decide(state, given)
    replayed = decided.to_json()
    if canonical_bytes(replayed) == canonical_bytes(record["out"]):
        return Replayed(True)
    found = list(_differences("out", record["out"], replayed))
    return Replayed(False, tuple(found[:MAX_DIFFERENCES]))


def parse_record(payload: bytes) -> JSON:
    """A decision record as plain data; ``ReplayError`` when it is none."""
    record = parse_json(payload, "decision record", ReplayError)
    whole = isinstance(record, dict) and record.keys() >= {"format", "bundle", "in", "out"}
    if not whole or record["format"] != FORMAT or not isinstance(record["in"], dict):
        raise ReplayError("record of another format")
    if "window" not in record["in"]:
        raise ReplayError("record of another format")
    return record


def replay_all(
    records: Iterable[Recorded],
    engine_of: Callable[[str], Engine | None],
    step: Callable[[], object] = lambda: None,
) -> Replay:
    """Replay every record with the bundle it names.

    Args:
        records: in any order.
        engine_of: bundle digest -> engine, or None where that bundle is not at hand.
        step: called after each record (a progress bar).
    """
    result = Replay()
    for record in records:
        try:
            replayed = _replay(record, engine_of)
        except ReplayError as error:
            result.not_replayable[error.what] += 1
        else:
            if replayed.identical:
                result.identical += 1
            else:
                result.different[record.name] = replayed.differences
        step()
    return result


def _replay(record: Recorded, engine_of: Callable[[str], Engine | None]) -> Replayed:
    if record.payload is None:
        raise ReplayError("record withheld")
    if record.promised is not None and digest(record.payload) != record.promised:
        return Replayed(False, (Difference("record", record.promised, digest(record.payload)),))
    engine = engine_of(str(parse_record(record.payload)["bundle"]))
    if engine is None:
        raise ReplayError("bundle not at hand")
    return replay_record(engine, record.payload, record.window)


def _differences(where: str, recorded: JSON, replayed: JSON) -> Iterator[Difference]:
    if isinstance(recorded, Mapping) and isinstance(replayed, Mapping):
        for key in sorted({*recorded, *replayed}, key=str):
            yield from _differences(f"{where}.{key}", recorded.get(key), replayed.get(key))
    elif canonical_bytes(recorded) != canonical_bytes(replayed):
        yield Difference(where, recorded, replayed)
