"""What the arms that run in process look at: the same windows as devices, their features in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.lab.decision_file import read_decision
from aiotkit.loop.twin import VIBRATION, Observation, Twin

#: statistics of a vibration axis that the arms may use
STATISTICS = ("mean", "std", "rms", "p2p", "kurtosis", "crest")


def bearing_decision() -> Decision:
    """The decision file that the simulated fleet is run by."""
    with resources.as_file(resources.files("aiotkit.loop") / "decisions/bearing.yaml") as path:
        return read_decision(path)


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch use one thread: for small batches more of them only get in each other's way."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Look:
    """An observation with its features.

    ``columns`` maps a feature's name to its value per distinct row, ``[distinct]`` float64;
    ``oil_temp`` is kept per arm and machine in ``seen.oil``.
    """

    seen: Observation
    columns: Mapping[str, NDArray[np.float64]]

    def feature(self, name: str, arms: slice = slice(None)) -> NDArray[np.float64]:
        """A feature for some arms, ``[arms, machines]``; NaN where it cannot be computed."""
        if name.startswith("oil_temp."):
            return self.seen.oil.value[arms]
        return self.columns[name][self.seen.index[arms]]


def look(twin: Twin) -> Look:
    """Observe and compute every feature that an arm may use, with the desk's own modules."""
    import torch

    from aiotkit.lab.features import statistic_module

    seen = twin.observe()
    columns: dict[str, NDArray[np.float64]] = {}
    with torch.inference_mode():
        flat = torch.from_numpy(seen.rows.reshape(-1, seen.rows.shape[-1]))
        bad = ~torch.isfinite(flat).all(dim=1)
        for statistic in STATISTICS:
            module = statistic_module(statistic, flat.shape[-1], 2048.0)
            values = module(flat).masked_fill(bad, torch.nan).numpy().astype(np.float64)
            for i, axis in enumerate(VIBRATION):
                columns[f"{axis}.{statistic}"] = values.reshape(-1, len(VIBRATION))[:, i]
    return Look(seen, columns)
