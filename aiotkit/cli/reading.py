"""How a file is read: the options that ``ingest`` and ``init`` share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Shape = Annotated[
    Literal["wide", "long", "window"] | None, typer.Option("--shape", help="Found by itself if not given.")
]
Time = Annotated[str | None, typer.Option("--time", help="Column of times; DATE+TIME joins two.")]
TimeFormat = Annotated[
    str | None, typer.Option("--time-format", help="strptime pattern of times not in ISO 8601.")
]
Epoch = Annotated[
    Literal["s", "ms", "us", "ns", "excel"] | None,
    typer.Option("--epoch", help="Unit of times in numbers; excel: its days."),
]
SubjectColumn = Annotated[str | None, typer.Option("--subject-column", help="Column that names the subject.")]
SubjectFrom = Annotated[
    Literal["filename", "folder", "names"] | None,
    typer.Option("--subject-from", help="What names the subject: the file, its folder, or columns and tags."),
]
NameColumn = Annotated[str | None, typer.Option("--name-column", help="Long data: column of names.")]
ValueColumn = Annotated[str | None, typer.Option("--value-column", help="Long data: column of values.")]
UnitColumn = Annotated[str | None, typer.Option("--unit-column", help="Long data: column of units.")]
Decimal = Annotated[str | None, typer.Option("--decimal", help="Decimal sign; a point if not given.")]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Of text that is not UTF-8, such as cp1252.")
]
