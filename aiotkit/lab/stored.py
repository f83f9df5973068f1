"""What was read enters a lake once: what is there already is left out, what contradicts it is not chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import AlreadyStoredError, ContradictionError
from aiotkit.lab.readings import otherwise, quoted, remember, remembered

if TYPE_CHECKING:
    import pyarrow as pa

    from aiotkit.lab.ingest import Ingested
    from aiotkit.lake.lake import Lake

Clash = Literal["refuse", "quarantine"]
CONTRADICTS = "another value for this instant is in the lake"
#: values that differ by less are the same, written or converted in another way
_RELATIVE, _ABSOLUTE = 1e-6, 1e-9


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of the values of a file.

    ``new`` were added, ``held`` were there with the same value, ``contradicted`` went to quarantine.
    ``version``: of the table ``telemetry``.
    """

    version: int
    new: int
    held: int
    contradicted: int


def store(
    found: Ingested,
    lake: Lake,
    *,
    ingested_us: int,
    device: str | None = None,
    clash: Clash = "refuse",
    replace: bool = False,
) -> Stored:
    """Append what is new, and the quarantine; see ``Ingested.to_lake``.

    Raises:
        AlreadyStoredError: these names of these bytes, read in this way, are in the lake.
        ContradictionError: the lake holds the file read otherwise, or another value for one of the instants;
            nothing was added.
    """
    rows, bad, reading = found.rows, found.quarantined, found.reading
    names, file = sorted(set(rows["name"])), digest(canonical_bytes([found.digest, reading.whose]))
    times = (lake.watermark(f"replaced/{file}", table="telemetry") or 0) + replace
    ranges = {name: reading.ranges.get(name) for name in names}
    mark = f"ingest/{digest(canonical_bytes([file, times, names, reading.plain(names), ranges]))}"
    if lake.watermark(mark, table="telemetry") is not None:
        what = f"{found.report.source}: these values are in the lake already"
        raise AlreadyStoredError(what, found=found.digest)
    if not replace:
        _refuse_otherwise(found, lake, names)
    same, other = _against(rows, _held(rows, lake, besides=found if replace else None))
    if times == 0 and _before_readings(found, lake, names):
        if len(same.union(other.index if clash == "quarantine" else same)) == len(rows):
            raise AlreadyStoredError(f"{found.report.source}: these values are in the lake already")
        raise otherwise(found.report.source, None, reading.how)
    if len(other) and clash == "refuse":
        raise _contradiction(found.report.source, other, lake)
    if len(other):
        refused = rows.loc[other.index].assign(reason=CONTRADICTS, content=rows["value"].astype(str))
        bad = pd.concat([one[list(found.quarantined)] for one in (bad, refused) if len(one)])
    source = f"{found.report.source} {found.digest}"
    # Quarantine first: were the power to fail between the two, the file is still wanted.
    if lake.watermark(mark, table="quarantine") is None:
        lake.append("quarantine", _quarantine_table(bad, source, ingested_us), transactions={mark: 1})
    remember(lake, "telemetry", found.digest, reading.plain(names) | {"mark": mark, "whose": reading.whose})
    new = _telemetry_table(rows.drop(index=same.union(other.index)), source, device)
    if replace:
        marks = {mark: 1, f"replaced/{file}": times}
        version = lake.replace("telemetry", new, _of_file(found), transactions=marks)
    else:
        version = lake.append("telemetry", new, transactions={mark: 1})
    return Stored(version, new.num_rows, len(same), len(other))


def _refuse_otherwise(found: Ingested, lake: Lake, names: Sequence[str]) -> None:
    """Refuse names that the lake holds of these bytes, read in another way."""
    entries = [e for e in remembered(lake, "telemetry", found.digest) if e["whose"] == found.reading.whose]
    now = found.reading.plain(names)
    for name in names:
        mine = (e for e in reversed(entries) if name in e["of"])
        was = next((e for e in mine if lake.watermark(e["mark"], table="telemetry") is not None), None)
        if was is None or (was["how"], was["of"][name]) == (now["how"], now["of"][name]):
            continue
        parts = (
            {**e["how"], **{f"{key} of {name}": v for key, v in e["of"][name].items()}} for e in (was, now)
        )
        raise otherwise(found.report.source, *parts)


def _before_readings(found: Ingested, lake: Lake, names: Sequence[str]) -> bool:
    """Whether these names were stored before lakes remembered how files were read."""
    mark = f"ingest/{digest(canonical_bytes([found.digest, list(names)]))}"
    return lake.watermark(mark, table="telemetry") is not None


def _of_file(found: Ingested) -> str:
    """Which rows of a lake are of these bytes (and of what of them was asked for), as SQL."""
    reading, where = found.reading, f"source LIKE {quoted('%' + found.digest)}"
    where += f" AND subject = {quoted(reading.whose)}" if reading.whose else ""
    names = ", ".join(map(quoted, reading.only))
    return f"{where} AND name IN ({names})" if names else where


def _held(rows: pd.DataFrame, lake: Lake, *, besides: Ingested | None = None) -> pd.DataFrame:
    """What the lake holds of the same subjects and names in the same span; files beside it are not read.

    ``besides``: without what it holds of the same file.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if rows.empty:
        return pd.DataFrame()
    where = _between("at", *(_instant(int(rows["at_us"].agg(end))) for end in ("min", "max")))
    for name in ("subject", "name"):
        words = sorted(set(rows[name]))
        # the bounds let whole files be passed over, the list rows
        where &= _between(name, words[0], words[-1]) & pc.field(name).isin(pa.array(words, pa.string()))
    if besides is not None:
        where &= ~pc.ends_with(pc.field("source"), besides.digest)
    columns = ["subject", "name", "at", "value", "word"]
    held: pd.DataFrame = lake.read("telemetry", columns=columns, where=where).to_pandas()
    held["at_us"] = held.pop("at").to_numpy(dtype="datetime64[us]").astype(np.int64)
    return held


def _between(name: str, low: Any, high: Any) -> Any:
    import pyarrow.compute as pc

    return (pc.field(name) >= low) & (pc.field(name) <= high)


def _instant(at_us: int) -> pa.Scalar:
    import pyarrow as pa

    return pa.scalar(at_us, pa.timestamp("us", tz="UTC"))


def _against(rows: pd.DataFrame, held: pd.DataFrame) -> tuple[pd.Index, pd.DataFrame]:
    """Which rows the lake holds with the same value; and those it holds with another, beside that one."""
    if held.empty:
        return rows.index[:0], rows.iloc[:0]
    key = ["subject", "name", "at_us"]
    both = rows[[*key, "row", "value", "word"]].reset_index().merge(held, on=key, suffixes=("", "_held"))
    mine, theirs = both["value"].astype(float), both["value_held"].astype(float)
    alike = np.isclose(mine, theirs, rtol=_RELATIVE, atol=_ABSOLUTE, equal_nan=True)
    alike &= both["word"].fillna("").to_numpy() == both["word_held"].fillna("").to_numpy()
    other = both[~alike].drop_duplicates("index").set_index("index")
    return pd.Index(both["index"].unique()).difference(other.index), other


def _contradiction(source: str, other: pd.DataFrame, lake: Lake) -> ContradictionError:
    first = other.iloc[0]
    subject, name, at = str(first["subject"]), str(first["name"]), _instant(int(first["at_us"]))
    where = _between("subject", subject, subject) & _between("name", name, name) & _between("at", at, at)
    held = lake.read("telemetry", columns=["source"], where=where)["source"][0].as_py()
    choice = pd.notna(first["word"])
    mine, theirs = (first["word"], first["word_held"]) if choice else (first["value"], first["value_held"])
    when = pd.Timestamp(first["at_us"], unit="us", tz="UTC").isoformat().replace("+00:00", "Z")
    return ContradictionError(
        f"{source}: {len(other):,} values contradict the lake, first {name} of '{subject}' at {when}",
        expected=f"{theirs}, as in {held.partition(' sha256:')[0]}",
        found=f"{mine} (row {first['row']})",
        do="Nothing of this file was stored. Check its subject, columns and time zone, and mend it; "
        "or keep what the lake holds with --clash quarantine. Is the lake wrong, read the file it has it "
        "from rightly, with --replace.",
    )


def _quarantine_table(bad: pd.DataFrame, source: str, ingested_us: int) -> pa.Table:
    import pyarrow as pa

    reason = bad["name"].where(bad["name"] == "", bad["name"] + ": ") + bad["reason"]
    at = np.full(len(bad), ingested_us, dtype="datetime64[us]")
    return pa.table(
        {
            "source": pa.array([source] * len(bad), pa.string()),
            "row": pa.array(bad["row"], pa.int64()),
            "reason": pa.array(reason, pa.string()),
            "content": pa.array(bad["content"], pa.string()),
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
        }
    )


def _telemetry_table(rows: pd.DataFrame, source: str, device: str | None) -> pa.Table:
    import pyarrow as pa

    at = rows["at_us"].to_numpy(dtype=np.int64).astype("datetime64[us]")
    return pa.table(
        {
            "subject": pa.array(rows["subject"], pa.string()),
            "name": pa.array(rows["name"], pa.string()),
            "at": pa.array(at, pa.timestamp("us", tz="UTC")),
            "value": pa.array(rows["value"].to_numpy(dtype=float), from_pandas=True),
            "word": pa.array(rows["word"], pa.string()),
            "unit": pa.array(rows["unit"], pa.string()),
            "device": pa.array([device] * len(rows), pa.string()),
            "source": pa.array([source] * len(rows), pa.string()),
        }
    )
