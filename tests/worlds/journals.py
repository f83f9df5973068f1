"""Journals for tests: what they hold is known from the sequence number, and a collector can sign for it."""

from __future__ import annotations

from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.sign import WATERMARK_TYPE, sign
from aiotkit.bundle.trust import RoleKeys, Trust, TrustedKey
from aiotkit.core.records import RecordType
from aiotkit.edge.disk import Disk
from aiotkit.edge.journal import Journal
from aiotkit.edge.watermark import Watermark

COLLECTOR = SigningKey.from_seed(bytes(31) + b"c")
STRANGER = SigningKey.from_seed(bytes(31) + b"s")
TRUST = Trust(
    keys={COLLECTOR.public.key_id: TrustedKey(public=COLLECTOR.public.raw.hex())},
    roles={"collector": RoleKeys(key_ids=(COLLECTOR.public.key_id,))},
)
JOURNAL_ID = "00112233aabbccdd"


def open_journal(disk: Disk, **options: object) -> Journal:
    """A journal of the device ``press-7`` with segments of 4 KiB."""
    chosen = {"journal_id": JOURNAL_ID, "quota_bytes": 1 << 20, "segment_bytes": 4096, **options}
    return Journal.open(disk, "press-7", **chosen)  # type: ignore[arg-type]


def payload_of(seq: int, size: int = 40) -> bytes:
    """What ``fill`` writes into record ``seq``."""
    return (b"record %d " % seq * (1 + size // 8))[:size]


def kind_of(seq: int) -> RecordType:
    """The type that ``fill`` gives record ``seq``: windows and decisions in turns."""
    return RecordType.WINDOW if seq % 2 else RecordType.DECISION


def fill(journal: Journal, groups: int, *, each: int = 3, size: int = 40) -> None:
    """Append and commit groups of records."""
    for _ in range(groups):
        for _ in range(each):
            seq = journal.next_seq
            assert journal.append(kind_of(seq), payload_of(seq, size)) == seq
        journal.commit()


def point(journal: Journal, seq: int) -> Watermark:
    """A truthful watermark at a record."""
    head = journal.head_before(seq + 1)
    assert head is not None
    return Watermark(device=journal.device, journal_id=journal.journal_id, seq=seq, head=head.hex())


def signed(mark: Watermark, key: SigningKey = COLLECTOR) -> bytes:
    """A watermark as the collector sends it."""
    return sign(WATERMARK_TYPE, mark.canonical(), [key]).to_bytes()
