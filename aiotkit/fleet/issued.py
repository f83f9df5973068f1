"""Reading back a watermark file that this collector may have written: only to know which journal it meant."""

from __future__ import annotations

import re

from aiotkit.bundle.document import parse_json
from aiotkit.bundle.sign import parse_envelope
from aiotkit.core.errors import SignatureError
from aiotkit.fleet.batch import JOURNAL_ID


def journal_of(data: bytes | None) -> str | None:
    """The journal a watermark file speaks of; ``None`` when there is none or it is damaged.

    The answer is a hint, not a fact: what is signed anew comes from the table.
    """
    if data is None:
        return None
    try:
        payload = parse_json(parse_envelope(data).payload, "watermark", SignatureError)
    except SignatureError:
        return None
    found = payload.get("journal_id") if isinstance(payload, dict) else None
    return found if isinstance(found, str) and re.fullmatch(JOURNAL_ID, found) else None
