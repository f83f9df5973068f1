"""Words of one's own as a user writes them: one Python file."""

from __future__ import annotations

from pathlib import Path

#: how much neighbouring samples differ, as root of the mean of squares
SWING = '''
"""Words of our own."""

import torch


class Swing(torch.nn.Module):
    """How much neighbouring samples differ, as root of the mean of squares."""

    word = "x_swing"

    def __init__(self, n: int, rate_hz: float) -> None:
        super().__init__()

    def forward(self, x):
        return (x[:, 1:] - x[:, :-1]).square().mean(dim=1).sqrt()
'''


def words_file(folder: Path, *changes: tuple[str, str], name: str = "my_words.py") -> Path:
    """The file, with some of its text replaced."""
    text = SWING
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    path = folder / name
    path.write_text(text)
    return path
