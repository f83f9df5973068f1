"""Context as it was known at an instant: an as-of join with the tolerance the device applies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from aiotkit.core.calendar import local_context
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError

_LEFT, _RIGHT = ("subject", "at_us"), ("subject", "name", "at_us")


def join_context(instants: pd.DataFrame, telemetry: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    """For each instant the newest context value of its subject that was not older than ``max_age_s``.

    A value from after the instant is never used. What is too old or was never heard is empty, as on the
    device; values derived from the site's clock (``local_hour``, ``weekday``, ``shift``) are always there.

    Args:
        instants: columns ``subject`` and ``at_us`` (µs UTC), and any others, which are kept.
        telemetry: rows as ``ingest`` gives them: ``subject``, ``name``, ``at_us``, ``value``, ``word``.
        decision: declares context and tolerances.

    Returns:
        The instants in their order with ``context.<name>`` and ``age_s.<name>`` added.

    Raises:
        DataError: a column is missing.
    """
    for frame, names, what in ((instants, _LEFT, "instants"), (telemetry, _RIGHT, "telemetry")):
        for name in names:
            if name not in frame.columns:
                raise DataError(f"{what}: column '{name}' is missing", expected=", ".join(names))
    out = instants.reset_index(drop=True)
    asked = out[["subject", "at_us"]].assign(_order=np.arange(len(out))).sort_values("at_us", kind="stable")
    for name, declared in decision.context.items():
        column = "value" if declared.values is None else "word"
        heard = telemetry.loc[telemetry["name"] == name, ["subject", "at_us", column]]
        heard = heard.rename(columns={"at_us": "heard_us"}).sort_values("heard_us", kind="stable")
        found = pd.merge_asof(
            asked,
            heard.assign(heard=heard["heard_us"]),
            left_on="at_us",
            right_on="heard_us",
            by="subject",
            direction="backward",
            tolerance=round(declared.max_age_s * 1e6),
        ).sort_values("_order")
        out[f"context.{name}"] = found[column].to_numpy()
        out[f"age_s.{name}"] = ((found["at_us"] - found["heard"]) / 1e6).to_numpy(dtype=float)
    return _with_calendar(out, decision)


def _with_calendar(out: pd.DataFrame, decision: Decision) -> pd.DataFrame:
    minutes = out["at_us"] // 60_000_000  # local time is the same for all instants of a minute
    known: dict[int, dict[str, Any]] = {
        int(m): dict(local_context(decision.site, int(m) * 60_000_000)) for m in minutes.unique()
    }
    for name in ("local_hour", "weekday", "shift"):
        out[f"context.{name}"] = [known[int(m)][name] for m in minutes]
    return out
