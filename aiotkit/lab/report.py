"""One page for people: sections of words, figures and tables in a single file that needs nothing else.

The page makes no request to anywhere, reads on a phone and prints. Text may hold ``**strong**`` and
`` `code` ``, paragraphs parted by an empty line, and one-line items that begin with ``- `` as a list.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pandas as pd

from aiotkit.core.errors import StorageError
from aiotkit.lab.figures import Plot

Table = pd.DataFrame | Sequence[Mapping[str, Any]]

_CSS = """
:root{--ink:#1d2830;--soft:#5a6873;--line:#dfe5e9;--paper:#fff;--ground:#f5f7f8;--mark:#0072b2;
color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebef;--soft:#a3b0ba;--line:#36434d;--paper:#182027;
--ground:#10161b;--mark:#6cb8e6}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif}
main{max-width:56rem;margin:0 auto;padding:1.5rem 1rem 4rem}
header h1{font-size:1.75rem;line-height:1.2;margin:.5rem 0 .25rem}
header p{color:var(--soft);margin:0 0 1rem}
nav{margin:0 0 1.5rem;font-size:.92rem}
nav ul{columns:2 16rem;padding-left:1.1rem;margin:.25rem 0}
a{color:var(--mark)}
section{background:var(--paper);border:1px solid var(--line);border-radius:.6rem;padding:.5rem 1.25rem 1rem;
margin:0 0 1rem}
h2{font-size:1.2rem;margin:.7rem 0 .4rem}
p,ul{margin:.5rem 0}
code{background:var(--ground);border-radius:.25rem;padding:.08em .3em;font-size:.9em}
figure{margin:1rem 0;background:#fff;border-radius:.4rem;padding:.6rem}
figure img{display:block;max-width:100%;height:auto}
figcaption{color:#4d5a64;font-size:.88rem;padding:.5rem .2rem 0;max-width:46rem}
.scroll{overflow-x:auto;margin:.75rem 0}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:50%}
th,td{padding:.32rem .7rem;border-bottom:1px solid var(--line);text-align:left;vertical-align:top}
th{color:var(--soft);font-weight:600;white-space:nowrap}
td.n,th.n{text-align:right;white-space:nowrap}
footer{color:var(--soft);font-size:.85rem}
@media print{body{background:#fff;font-size:11pt}main{max-width:none;padding:0}nav{display:none}
section{border:0;padding:0}figure,table{break-inside:avoid}h2{break-after:avoid}}
"""


@dataclass(frozen=True, slots=True)
class _Section:
    heading: str
    body: str


class Report:
    """A page that grows section by section.

    >>> page = Report("Pump 3").section("What happened", "It ran for **12 days**.")
    >>> "<strong>12 days</strong>" in page.html()
    True
    """

    def __init__(self, title: str, subtitle: str = "", *, footer: str = "") -> None:
        self.title, self.subtitle, self.footer = title, subtitle, footer
        self._sections: list[_Section] = []

    def section(
        self,
        heading: str,
        text: str = "",
        *,
        figure: Plot | Sequence[Plot] | None = None,
        table: Table | None = None,
    ) -> Report:
        """Add a section: words, then figures with their captions, then a table. Returns the report."""
        plots = () if figure is None else (figure,) if isinstance(figure, Plot) else tuple(figure)
        parts = [to_html(text), *(plot.to_html() for plot in plots)]
        if table is not None:
            parts.append(table_html(table))
        self._sections.append(_Section(heading, "\n".join(parts)))
        return self

    def html(self) -> str:
        """The whole page."""
        items = "".join(f'<li><a href="#s{i}">{html.escape(s.heading)}</a></li>' for i, s in self._numbered())
        nav = f"<nav aria-label='Contents'><ul>{items}</ul></nav>" if len(self._sections) > 2 else ""
        body = "\n".join(
            f'<section id="s{i}"><h2>{html.escape(s.heading)}</h2>\n{s.body}</section>'
            for i, s in self._numbered()
        )
        title = html.escape(self.title)
        subtitle = f"<p>{html.escape(self.subtitle)}</p>" if self.subtitle else ""
        footer = f"<footer>{to_html(self.footer)}</footer>" if self.footer else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
            "style-src 'unsafe-inline'\">"
            f"<title>{title}</title><style>{_CSS}</style></head>\n<body><main>"
            f"<header><h1>{title}</h1>{subtitle}</header>\n{nav}\n{body}\n{footer}</main></body></html>\n"
        )

    def write(self, path: str | Path) -> Path:
        """Write the page as one file and return its path.

        Raises:
            StorageError: the folder cannot be written.
        """
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.html(), encoding="utf-8")
        except OSError as error:
            raise StorageError(f"{path}: the report cannot be written", found=str(error)) from error
        return path

    def _numbered(self) -> list[tuple[int, _Section]]:
        return list(enumerate(self._sections, 1))

    def _repr_html_(self) -> str:
        return "".join(f"<h3>{html.escape(s.heading)}</h3>{s.body}" for s in self._sections)


def to_html(text: str) -> str:
    """Plain words as HTML; everything that is not the markup named above is shown as it is.

    >>> to_html("a < b and **c**")
    '<p>a &lt; b and <strong>c</strong></p>'
    """
    blocks = [block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip()]
    return "\n".join(_block(block) for block in blocks)


def _block(block: str) -> str:
    """A paragraph, a list, or both in the order they stand."""
    out: list[str] = []
    for in_list, lines in groupby(block.split("\n"), key=lambda line: line.lstrip().startswith("- ")):
        words = [_inline(line.strip()) for line in lines]
        if in_list:
            out.append("<ul>" + "".join(f"<li>{w.removeprefix('- ')}</li>" for w in words) + "</ul>")
        else:
            out.append(f"<p>{' '.join(words)}</p>")
    return "".join(out)


def _inline(text: str) -> str:
    safe = html.escape(text, quote=False)
    safe = re.sub(r"`([^`]+)`", r"<code>\1</code>", safe)
    return re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", safe)


def table_html(table: Table) -> str:
    """A table that scrolls sideways where the screen is narrow; numbers to the right."""
    frame = table if isinstance(table, pd.DataFrame) else pd.DataFrame(list(table))
    numeric = [pd.api.types.is_numeric_dtype(t) and not pd.api.types.is_bool_dtype(t) for t in frame.dtypes]
    head = "".join(
        f"<th{_right(n)}>{html.escape(str(c).replace('_', ' '))}</th>"
        for c, n in zip(frame.columns, numeric, strict=True)
    )
    rows = "".join(
        "<tr>"
        + "".join(f"<td{_right(n)}>{_cell(v)}</td>" for v, n in zip(row, numeric, strict=True))
        + "</tr>"
        for row in frame.itertuples(index=False, name=None)
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _right(number: bool) -> str:
    return ' class="n"' if number else ""


def _cell(value: Any) -> str:
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:,.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return html.escape(value.isoformat(sep=" ", timespec="seconds"))
    return _inline(str(value))
