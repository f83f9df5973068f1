"""What else could have been done: the same fleet and the same luck under other policies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from aiotkit.loop.look import look, single_thread
from aiotkit.loop.policies import Policy
from aiotkit.loop.twin import Twin
from aiotkit.loop.wear import Array

#: called with the share that is done, 0 to 1
Progress = Callable[[float], None]


@dataclass(frozen=True)
class Lived:
    """One run of several policies: arm names, money [arms, machines, days], EUR by category and arm."""

    names: tuple[str, ...]
    money: Array
    categories: dict[str, Array]


def live(twin: Twin, policies: Sequence[Policy], progress: Progress | None = None) -> Lived:
    """Run a twin to its end; its arms are those of the policies, in order."""
    names = tuple(name for p in policies for name in p.names)
    edges = np.cumsum([0, *(len(p.names) for p in policies)])
    slices = [slice(int(a), int(b)) for a, b in pairwise(edges)]
    with single_thread():
        while not twin.done:
            seen = look(twin)
            orders = [p.order(seen, s, twin) for p, s in zip(policies, slices, strict=True)]
            twin.advance(np.concatenate(orders))
            if progress is not None:
                progress(twin.step / twin.steps)
    return Lived(names, twin.ledger.money(), twin.ledger.by_category())
