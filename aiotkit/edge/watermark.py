"""What a collector signs when it holds a device's records: up to which one, and with which head."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.sign import WATERMARK_TYPE, open_envelope, parse_envelope
from aiotkit.bundle.trust import Trust
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import ChainError, JournalError
from aiotkit.core.strict import Strict
from aiotkit.edge.journal_files import Identity


class Watermark(Strict):
    """Records up to ``seq`` of this journal are kept by the collector; ``head`` (hex) is that record's."""

    format: Literal[1] = 1
    device: str
    journal_id: str
    seq: PositiveInt
    head: str = Field(pattern=r"^[0-9a-f]{64}$")

    def canonical(self) -> bytes:
        """What is signed."""
        return canonical_bytes(self.model_dump(mode="json"))


def read_watermark(envelope: bytes, trust: Trust) -> Watermark:
    """A watermark, once the role ``collector`` has signed it.

    Raises:
        SignatureError: not signed as the trust demands.
        JournalError: signed, but not a watermark.
    """
    payload = open_envelope(parse_envelope(envelope, "watermark"), trust, "collector", WATERMARK_TYPE)
    return parse_document(payload, Watermark, "watermark", JournalError)


def check_watermark(mark: Watermark, owner: Identity, durable_seq: int, head: bytes | None) -> None:
    """Whether a signed watermark speaks of this journal's records.

    Args:
        mark: what the collector says.
        owner: whose journal it is.
        durable_seq: its last record.
        head: its head at the watermark's record; ``None`` when it cannot be known any more.

    Raises:
        ChainError: it is another journal's, lies beyond the end, or has another head.
    """
    if (mark.device, mark.journal_id) != (owner.device, owner.journal_id):
        found = f"{mark.device}/{mark.journal_id}"
        raise ChainError("watermark", expected=f"one for {owner.device}/{owner.journal_id}", found=found)
    if mark.seq > durable_seq:
        raise ChainError(
            f"watermark at record {mark.seq}",
            expected=f"at most {durable_seq}, the last one here",
            do="The collector holds records this journal lost: begin a new journal in an empty folder.",
        )
    if head is not None and head.hex() != mark.head:
        raise ChainError(
            f"watermark at record {mark.seq}",
            expected=f"our head {head.hex()[:12]}…",
            found=mark.head[:12] + "…",
            do="Nothing was removed. Run: aiotkit journal verify.",
        )
