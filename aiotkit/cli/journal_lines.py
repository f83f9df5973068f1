"""Journal records in words and as plain data, for ``aiotkit journal``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiotkit.core.canonical import JSON
from aiotkit.core.errors import JournalError, StorageError, did_you_mean
from aiotkit.core.frames import Frame
from aiotkit.core.records import RecordType
from aiotkit.edge.journal_verify import Verified

_TIMES = ("now_us", "at_us")


@dataclass(frozen=True, slots=True)
class Since:
    """Where to begin: a record's number, and an instant (µs UTC) or none."""

    seq: int
    at_us: int | None

    def reached(self, frame: Frame) -> bool:
        """Whether a record carries a time at or behind the instant."""
        at_us = record_time_us(frame)
        return self.at_us is not None and at_us is not None and at_us >= self.at_us


def parse_since(text: str | None) -> Since:
    """A number or an instant with its zone.

    >>> parse_since("17"), parse_since("2026-11-02T06:00:00+01:00").at_us
    (Since(seq=17, at_us=None), 1793595600000000)
    """
    if text is None or text.isdecimal():
        return Since(int(text or 1), None)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise JournalError(
            "--since", expected="a record's number or a time like 2026-11-02T06:00:00Z", found=text
        ) from error
    if at.tzinfo is None:
        raise JournalError("--since", expected="a time with its zone", found=text, do="Add Z or +01:00.")
    return Since(1, round(at.timestamp() * 1e6))


def parse_types(names: Iterable[str]) -> frozenset[int]:
    """Record types by name, in any case; all when none is named."""
    known = {kind.name.lower(): int(kind) for kind in RecordType}
    for name in names:
        if name.lower() not in known:
            hint = did_you_mean(name.lower(), known)
            raise JournalError("--type", expected=", ".join(known), found=name, do=hint)
    return frozenset(known[name.lower()] for name in names) or frozenset(known.values())


def read_bytes(path: Path, what: str) -> bytes:
    """A small file; ``StorageError`` when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise StorageError(f"{what} {path}", expected="a file", found=error.strerror or str(error)) from error


def record_json(frame: Frame) -> JSON:
    """A record's payload as plain data; ``None`` when it is withheld or no JSON (windows)."""
    if frame.payload is None or frame.type is RecordType.WINDOW:
        return None
    try:
        return json.loads(frame.payload)
    except ValueError:
        return None


def record_time_us(frame: Frame) -> int | None:
    """The instant that a record carries (µs UTC), if any."""
    said = record_json(frame)
    if not isinstance(said, dict):
        return None
    inner = said.get("in")
    for part in (inner if isinstance(inner, dict) else said, said):
        for name in _TIMES:
            if isinstance(part.get(name), int):
                return int(part[name])
    return None


def frame_to_json(frame: Frame) -> dict[str, JSON]:
    """A record as plain data."""
    return {
        "seq": frame.seq,
        "type": frame.type.name,
        "at_us": record_time_us(frame),
        "bytes": frame.length,
        "digest": f"sha256:{frame.digest.hex()}",
        "head": frame.head.hex(),
        "withheld": frame.withheld,
        "payload": record_json(frame),
    }


def frame_text(frame: Frame) -> str:
    """A record as one line."""
    at_us = record_time_us(frame)
    when = "" if at_us is None else datetime.fromtimestamp(at_us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S.%fZ")
    said = "(withheld)" if frame.withheld else _words(frame)
    return f"{frame.seq:>8}  {when:<27}  {frame.type.name:<11}  {said}".rstrip()


def _words(frame: Frame) -> str:
    said = record_json(frame)
    if frame.type is RecordType.WINDOW:
        return _window_words(frame.payload or b"")
    if not isinstance(said, dict):
        return f"{frame.length} bytes"
    if frame.type is RecordType.DECISION and isinstance(said.get("out"), dict):
        return _decision_words(said["out"])
    if frame.type is RecordType.GAP and {"first", "last", "reason"} <= said.keys():
        counts = ", ".join(f"{n} {name.lower()}" for name, n in (said.get("counts") or {}).items())
        return f"records {said['first']} to {said['last']} are gone: {said['reason']}" + (
            f" ({counts})" if counts else ""
        )
    rest = {name: value for name, value in said.items() if name not in ("format", *_TIMES)}
    return _short(json.dumps(rest, ensure_ascii=False, sort_keys=True), 160)


def _decision_words(out: Mapping[str, Any]) -> str:
    proposed = out.get("proposed") or "undeterminable"
    final = out.get("final") or "no new command"
    text = f"{proposed} -> {final} [{out.get('verdict')}, {out.get('mode')}]"
    if out.get("in_force"):
        text += f" in force: {out['in_force']}"
    reason = out.get("final_reason") or out.get("proposal_reason") or ""
    return _short(f"{text}; {reason}" if reason else text, 160)


def _window_words(payload: bytes) -> str:
    line = payload.partition(b"\n")[0]
    try:
        lengths = json.loads(line)
    except ValueError:
        return f"{len(payload)} bytes"
    return ", ".join(f"{name} x{n}" for name, n in sorted(lengths.items()))


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def verified_to_json(found: Verified) -> dict[str, JSON]:
    """A verification as plain data."""
    return {
        "ok": found.ok,
        "first_bad": found.first_bad,
        "device": found.device,
        "journal_id": found.journal_id,
        "first_seq": found.first_seq,
        "last_seq": found.last_seq,
        "head": found.head,
        "records": found.records,
        "counts": found.counts,
        "withheld": found.withheld,
        "segments": found.segments,
        "checkpoint_seq": found.checkpoint_seq,
        "gaps": [note.model_dump(mode="json") for note in found.gaps],
        "problems": [{"seq": problem.seq, "why": problem.why} for problem in found.problems],
    }


def verified_text(found: Verified) -> str:
    """A verification in words."""
    counts = ", ".join(f"{n} {name.lower()}" for name, n in found.counts.items()) or "none"
    lines = [
        f"journal {found.device}/{found.journal_id}",
        f"records {found.first_seq} to {found.last_seq} in {found.segments} segments: {counts}",
    ]
    if found.withheld:
        lines.append(f"payloads withheld: {found.withheld} (digests are in the chain)")
    if found.gaps:
        newest = found.gaps[-1]
        lines.append(
            f"declared gaps: {len(found.gaps)}, the newest {newest.first} to {newest.last}: {newest.reason}"
        )
    if found.checkpoint_seq is None:
        lines.append("no signed checkpoint: a cut end or a complete rewrite would not show")
    else:
        lines.append(f"signed checkpoint: record {found.checkpoint_seq}")
    if found.ok:
        return "\n".join([*lines, f"ok: head {found.head}"])
    lines.append(f"NOT OK: the first bad record is {found.first_bad}")
    lines += [f"  record {problem.seq}: {problem.why}" for problem in found.problems]
    return "\n".join(lines)
