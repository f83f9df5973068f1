"""Headers of two lines, groups above names: sheets with merged cells, tables that pandas has pivoted."""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence

#: what stands between a group and a name where a header has both
BETWEEN = " | "


def two_lines(rows: Sequence[Sequence[str]]) -> tuple[list[str], int] | None:
    """Names out of a header of two lines, and how many lines it takes; None where the header is one line.

    A group stands above its first column or above each; columns left of the first group have none. pandas
    adds a third line, which names its index.

    >>> two_lines([["", "p1", "", "p2", ""], ["at", "heat", "vib", "heat", "vib"], ["8:00", *"1234"]])
    (['at', 'p1 | heat', 'p1 | vib', 'p2 | heat', 'p2 | vib'], 2)
    """
    if len(rows) < 3 or len({len(row) for row in rows[:3]}) != 1:
        return None
    top, below = ([cell.strip() for cell in row] for row in rows[:2])
    used = 3 if rows[2][0].strip() and not any(cell.strip() for cell in rows[2][1:]) else 2
    if not all(below[1:]) or any(map(_is_value, [*top, *below])) or not _numbers(rows[used:], len(top)):
        return None
    if not _are_groups(top[1:]):
        return None
    groups: list[str] = []
    names = list(below)
    if used == 3 or not below[0]:  # pandas: the first column's cells name levels
        names[0] = rows[2][0].strip() if used == 3 else top[0]
        top[0] = ""
    for group in top:
        groups.append(group or (groups[-1] if groups else ""))
    joined = [f"{group}{BETWEEN}{name}" if group else name for group, name in zip(groups, names, strict=True)]
    return (joined, used) if len(set(joined)) == len(joined) and joined[0] else None


def flat(names: Sequence[Sequence[Hashable]]) -> list[str]:
    """Names of columns that have several levels, as ``two_lines`` writes them.

    >>> flat([("time", ""), ("p1", "heat")])
    ['time', 'p1 | heat']
    """
    return [BETWEEN.join(str(level) for level in name if str(level)) for name in names]


def _are_groups(cells: Sequence[str]) -> bool:
    """Whether at least two groups stand above several columns each: a gap here and there makes none."""
    there = [cell for cell in cells if cell]
    repeated = len(set(there)) < len(there)
    return len(set(there)) > 1 and (repeated or 2 * len(there) <= len(cells))


def _is_value(cell: str) -> bool:
    """Whether a cell begins as numbers and dates do."""
    return re.fullmatch(r"[-+]?[\d.,:/\- ]*\d[\d.,:/\- eE]*", cell) is not None


def _numbers(rows: Sequence[Sequence[str]], width: int) -> bool:
    """Whether most cells below the first column are numbers."""
    cells = [cell.strip() for row in rows if len(row) == width for cell in row[1:] if cell.strip()]
    return bool(cells) and sum(map(_is_value, cells)) >= 0.5 * len(cells)
