"""The tables of a lake: their columns, what may be empty, and how they are laid out. Format 1.

Instants are ``timestamp[us, UTC]``; digests are ``sha256:<hex>`` strings. Every table but ``assets``'
meaning is plain: a row is a fact that is never changed. Corrections are new rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

FORMAT = 1
FORMAT_PROPERTY = "aiotkit.format"
INSTANT = pa.timestamp("us", tz="UTC")
MONTH = "month"


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table: its Arrow schema, the order rows are stored in, and the column ``month`` comes from.

    ``month_of`` names the instant from which the partition column ``month`` (``YYYY-MM``, UTC) is
    derived when rows are appended; ``None`` = the table has no partitions.
    """

    name: str
    description: str
    schema: pa.Schema
    order: tuple[str, ...] = ()
    month_of: str | None = None

    @property
    def partitions(self) -> tuple[str, ...]:
        """The columns the table is partitioned by."""
        return () if self.month_of is None else (MONTH,)


def _columns(text: str) -> pa.Schema:
    """Columns from words: ``name:type`` per word; ``!`` behind the type = may not be empty."""
    return pa.schema(
        [
            pa.field(name, _TYPES[kind.rstrip("!")], nullable=not kind.endswith("!"))
            for name, _, kind in (word.partition(":") for word in text.split())
        ]
    )


_TYPES: Mapping[str, pa.DataType] = {
    "text": pa.string(),
    "at": INSTANT,
    "real": pa.float64(),
    "whole": pa.int64(),
    "flag": pa.bool_(),
}

TELEMETRY = TableSchema(
    "telemetry",
    "One row per value of a signal or context: 'value' in 'unit', or 'word' for a choice.",
    _columns(
        "subject:text! name:text! at:at! value:real word:text unit:text device:text source:text! month:text!"
    ),
    order=("subject", "name", "at"),
    month_of="at",
)
QUARANTINE = TableSchema(
    "quarantine",
    "Rows that were not believed: where they came from, what they held, and why.",
    _columns("source:text! row:whole! reason:text! content:text! at:at!"),
    order=("source", "row"),
)
DECISIONS = TableSchema(
    "decisions",
    "Every journal record of every device; for DECISION records the fields one filters by.",
    _columns(
        "device:text! journal_id:text! seq:whole! type:text! digest:text! length:whole! head:text! "
        "withheld:flag! payload:text "
        "decision_id:text revision:whole bundle:text at:at window:text "
        "proposed:text verdict:text final:text in_force:text mode:text "
        "verify_p:real verify_hit:flag upload_p:real upload_hit:flag"
    ),
    order=("device", "journal_id", "seq"),
)
OUTCOMES = TableSchema(
    "outcomes",
    "Reports of states: what was observed of a subject, when it was so, when and by whom it was said.",
    _columns(
        "subject:text! state:text! at:at! reported_at:at! source:text! reliability:real! kind:text! "
        "provenance:text! note:text"
    ),
    order=("subject", "at"),
)
LABELS = TableSchema(
    "labels",
    "What we believe about a decision as of an instant; the newest as_of counts.",
    _columns(
        "decision_id:text! revision:whole device:text! journal_id:text! seq:whole! subject:text! at:at! "
        "state:text status:text! confidence:real source:text provenance:text as_of:at!"
    ),
    order=("decision_id", "device", "seq"),
)
ASSETS = TableSchema(
    "assets",
    "Which device watched which subject, from when until when; the newest recorded_at of a device and "
    "valid_from counts.",
    _columns(
        "device:text! subject:text! sensor:text site:text hardware:text valid_from:at! valid_to:at "
        "recorded_at:at!"
    ),
    order=("device", "valid_from", "recorded_at"),
)
BLOBS = TableSchema(
    "blobs",
    "Where the bytes of a digest lie: pack file, offset and size.",
    _columns("digest:text! pack:text! offset:whole! size:whole!"),
    order=("digest",),
)

TABLES: Mapping[str, TableSchema] = {
    t.name: t for t in (TELEMETRY, QUARANTINE, DECISIONS, OUTCOMES, LABELS, ASSETS, BLOBS)
}
