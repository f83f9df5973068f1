"""A recorded hydraulic test rig as a source: its cycles in time order, and the state noted for each.

Reads the folder layout of the UCI set "Condition monitoring of hydraulic systems" (Helwig, Pignanelli,
Schuetze 2015): one file a sensor, a row a cycle of 60 s at 1 Hz, and ``profile.txt`` with the conditions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.edge.sources import Packet, Samples
from aiotkit.lab.decision_file import read_decision

CYCLE_S = 60
#: the record has no date; this one is ours
START_US = 1_420_070_400_000_000
PARTS = ("cooler", "valve", "pump", "accumulator")
_FOLDERS = ("native_1hz", "derived_1hz")
_NOTED = {
    "cooler": {3: "failing", 20: "reduced", 100: "full"},
    "valve": {73: "failing", 80: "severe_lag", 90: "small_lag", 100: "optimal"},
    "pump": {0: "tight", 1: "weak_leak", 2: "severe_leak"},
    "accumulator": {90: "failing", 100: "severely_reduced", 115: "slightly_reduced", 130: "optimal"},
}


@dataclass(frozen=True, slots=True)
class Rig:
    """The record: sensor -> float32 [cycles, 60], and part -> the state noted for each cycle."""

    sensors: dict[str, NDArray[np.float32]]
    states: dict[str, list[str]]

    @property
    def cycles(self) -> int:
        """How many cycles were recorded."""
        return len(self.states["cooler"])

    def first(self, cycles: int) -> Rig:
        """The beginning of the record."""
        return Rig(
            {name: values[:cycles] for name, values in self.sensors.items()},
            {part: states[:cycles] for part, states in self.states.items()},
        )


def rig_decision(part: str) -> Decision:
    """The decision file of one part (cooler, valve, pump or accumulator)."""
    with resources.as_file(resources.files("aiotkit.loop") / f"decisions/hydraulic_{part}.yaml") as path:
        return read_decision(path)


def read_rig(folder: Path, sensors: set[str]) -> Rig:
    """Read the sensors that are asked for and the noted states.

    Raises:
        DataError: a file is missing, has another number of rows or columns, or notes an unknown state.
    """
    profile = _table(folder / "profile.txt")
    states = {part: _noted(part, profile[:, i]) for i, part in enumerate(PARTS)}
    found = {}
    for sensor in sorted(sensors):
        values = _table(_sensor_file(folder, sensor)).astype(np.float32)
        if values.shape != (len(profile), CYCLE_S):
            raise DataError(
                f"sensor {sensor}",
                expected=f"{len(profile)} rows of {CYCLE_S} values, as many as profile.txt",
                found=f"{values.shape[0]} rows of {values.shape[1]}",
            )
        found[sensor] = values
    return Rig(found, states)


def _sensor_file(folder: Path, sensor: str) -> Path:
    for name in (f"{sensor}.txt", f"{sensor}.csv"):
        for below in (*_FOLDERS, "."):
            if (folder / below / name).is_file():
                return folder / below / name
    raise DataError(
        f"sensor {sensor}",
        expected=f"{sensor}.txt or {sensor}.csv in {folder.name}/ or its {' or '.join(_FOLDERS)}",
        found="neither",
        do="Give the data set's folder with --data.",
    )


def _table(path: Path) -> NDArray[np.float64]:
    try:
        frame = pd.read_csv(path, sep="\t", header=None, dtype=np.float64)
    except FileNotFoundError as error:
        raise DataError(
            f"{path.name} in {path.parent.name}/", found="no such file", do="Give the folder with --data."
        ) from error
    except ValueError as error:
        raise DataError(
            f"{path.name}", expected="numbers separated by tabs", found=str(error)[:120]
        ) from error
    return frame.to_numpy()


def _noted(part: str, codes: NDArray[np.float64]) -> list[str]:
    known = _NOTED[part]
    unknown = sorted(set(codes.astype(int).tolist()) - set(known))
    if unknown:
        raise DataError(
            f"profile.txt: condition of the {part}", expected=str(sorted(known)), found=str(unknown)
        )
    return [known[int(code)] for code in codes]


def rig_packets(rig: Rig, decision: Decision, cycles: range) -> Iterator[Packet]:
    """One packet a cycle, given at its end, with the signals the decision declares."""
    for cycle in cycles:
        first_us = START_US + cycle * CYCLE_S * 1_000_000
        samples = {name: Samples(first_us, 1.0, rig.sensors[name][cycle]) for name in decision.signals}
        yield Packet(first_us + CYCLE_S * 1_000_000, samples)
