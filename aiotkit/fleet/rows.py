"""Journal records as rows of the lake's ``decisions`` table (pure), and the blobs that go beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from aiotkit.core.frames import Frame
from aiotkit.core.records import RecordType
from aiotkit.fleet.batch import Stream, Taken
from aiotkit.lake.schemas import DECISIONS

DROPPED = "DROPPED"
"""Type of a row that stands for the records up to ``seq`` which the device dropped: ``length`` of them."""

_INT64 = 1 << 63


class Rows:
    """Gathers rows column by column; ``table`` gives them to Arrow."""

    def __init__(self) -> None:
        self._columns: dict[str, list[Any]] = {name: [] for name in DECISIONS.schema.names}
        self.blobs: dict[str, bytes] = {}
        self.blob_places: dict[Stream, list[tuple[int, str]]] = {}
        self.unreadable = 0
        self.gaps = 0

    def __len__(self) -> int:
        return len(self._columns["seq"])

    def add(self, stream: Stream, taken: Taken) -> None:
        """Add what a batch brought: the dropped range first, if there is one."""
        if taken.dropped is not None:
            gap = taken.dropped
            self.gaps += 1
            self._add(
                stream,
                seq=gap.last,
                type=DROPPED,
                digest="",
                length=gap.last - gap.first + 1,
                head=taken.previous.hex(),
                withheld=False,
                payload=json.dumps({"first": gap.first, "last": gap.last}),
            )
        for frame in taken.frames:
            self._add_frame(stream, frame)

    def table(self) -> pa.Table:
        """All rows."""
        return pa.table(
            [pa.array(self._columns[f.name], f.type) for f in DECISIONS.schema], schema=DECISIONS.schema
        )

    def _add_frame(self, stream: Stream, frame: Frame) -> None:
        name = f"sha256:{frame.digest.hex()}"
        text, extracted = None, {}
        if frame.payload is not None:
            text = None if frame.type is RecordType.WINDOW else _text(frame.payload)
            if text is None:
                self.blobs[name] = frame.payload
                self.blob_places.setdefault(stream, []).append((frame.seq, name))
            if frame.type is RecordType.DECISION:
                extracted = extract(text)
                self.unreadable += not extracted
        self._add(
            stream,
            seq=frame.seq,
            type=frame.type.name,
            digest=name,
            length=frame.length,
            head=frame.head.hex(),
            withheld=frame.withheld,
            payload=text,
            **extracted,
        )

    def _add(self, stream: Stream, **fields: Any) -> None:
        fields["device"], fields["journal_id"] = stream.device, stream.journal_id
        for name, column in self._columns.items():
            column.append(fields.get(name))


def extract(text: str | None) -> dict[str, Any]:
    """The fields of a decision record that one filters by.

    A record that is not one (its chain is sound, its content is not) gives nothing: it is kept as it is.
    A single field of the wrong type is left out.
    """
    try:
        record = json.loads(text or "")
        given, out = record["in"], record["out"]
        verify_p, verify_u = out["verify"]
        upload_p, upload_u = out["upload"]
        decision_id, revision = record.get("decision") or (None, None)
        return {
            "decision_id": _word(decision_id),
            "revision": _whole(revision),
            "bundle": _word(record.get("bundle")),
            "at": _whole(given.get("now_us")),
            "window": _word(given.get("window")),
            **{name: _word(out.get(name)) for name in ("proposed", "verdict", "final", "in_force", "mode")},
            "verify_p": _real(verify_p),
            "verify_hit": _hit(verify_p, verify_u),
            "upload_p": _real(upload_p),
            "upload_hit": _hit(upload_p, upload_u),
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def ranges(payloads: Iterable[str | None], types: Sequence[str]) -> list[tuple[int, int]]:
    """(first, last) of every dropped range that GAP and DROPPED rows tell; unreadable ones are left out."""
    found = []
    for payload, kind in zip(payloads, types, strict=True):
        if kind not in (DROPPED, RecordType.GAP.name) or payload is None:
            continue
        try:
            gap = json.loads(payload)
            first, last = gap["first"], gap["last"]
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        if isinstance(first, int) and isinstance(last, int) and 1 <= first <= last < _INT64:
            found.append((first, last))
    return found


def _text(payload: bytes) -> str | None:
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _word(value: Any) -> str | None:
    """A string that Arrow can hold: lone surrogates, which JSON can spell, have no UTF-8."""
    if not isinstance(value, str):
        return None
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def _whole(value: Any) -> int | None:
    whole = isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64
    return value if whole else None


def _real(value: Any) -> float | None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if number else None


def _hit(p: Any, u: Any) -> bool | None:
    p, u = _real(p), _real(u)
    return None if p is None or u is None else u < p


def watermark_document(stream: Stream, seq: int, head: bytes) -> Mapping[str, Any]:
    """What a collector tells a device: everything up to ``seq`` is durable elsewhere."""
    return {
        "format": 1,
        "device": stream.device,
        "journal_id": stream.journal_id,
        "seq": seq,
        "head": head.hex(),
    }
