"""The one base of all parsed documents: unknown keys refused, values frozen; and the kinds of values.

Bounds are what no honest document comes near: a century for spans, so that no sum of instants overflows.
"""

from __future__ import annotations

import unicodedata
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

#: a little more than a hundred years, in seconds
CENTURY_S = 3.2e9
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # letters of some scripts and signs need them


class Strict(BaseModel):
    """Frozen; an unknown key is a typing error; NaN and infinities are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


def _visible(text: str, allowed: str = "") -> str:
    for sign in text:
        if sign not in allowed and unicodedata.category(sign) in _UNSEEN:
            raise ValueError(f"holds the control character U+{ord(sign):04X}; only what can be seen is text")
    return text


def _visible_lines(text: str) -> str:
    return _visible(text, "\n\t" + _JOINERS)


def visible_line(text: str) -> str:
    """The text, if it is one line of what can be seen (else ``ValueError``)."""
    return _visible(text, _JOINERS)


#: words for people, in lines; and in one line
Text = Annotated[str, AfterValidator(_visible_lines), Field(max_length=4000)]
Line = Annotated[str, AfterValidator(visible_line), Field(max_length=400)]
#: a span of time, at least a millisecond; and one that may be nothing (seconds)
Seconds = Annotated[float, Field(ge=1e-3, le=CENTURY_S)]
Wait = Annotated[float, Field(ge=0, le=CENTURY_S)]
#: a span that must be met, in milliseconds
Milliseconds = Annotated[float, Field(gt=0, le=CENTURY_S * 1e3)]
Money = Annotated[float, Field(ge=-1e15, le=1e15)]
Rate = Annotated[float, Field(ge=1e-6, le=1e7)]
#: a count or number of a revision
Count = Annotated[int, Field(ge=1, le=2**31)]
