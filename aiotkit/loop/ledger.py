"""What it costs, in EUR, booked when it happens: the one measure of every arm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiotkit.loop.wear import Array

CATEGORIES = ("production", "service", "breakdown", "inspection", "verification")
PRODUCTION, SERVICE, BREAKDOWN, INSPECTION, VERIFICATION = range(5)


@dataclass(frozen=True, slots=True)
class Prices:
    """EUR. ``production_h``: margin of an hour of production at full speed.

    ``service`` by what was found (nothing, bearing, lubricant): call-out, labour and parts.
    ``breakdown`` by cause (-, bearing, lubricant): emergency crew, secondary damage, parts, scrap.
    """

    production_h: float = 60.0
    service: tuple[float, float, float] = (150.0, 900.0, 300.0)
    breakdown: tuple[float, float, float] = (0.0, 5000.0, 6000.0)
    inspection: float = 15.0


PRICES = Prices()


class Ledger:
    """Money by arm, machine, day and category: ``entries`` is ``[arms, machines, days, categories]``."""

    def __init__(self, arms: int, machines: int, days: int) -> None:
        self.entries = np.zeros((arms, machines, days, len(CATEGORIES)))

    def book(self, day: int, category: int, amount: Array) -> None:
        """Add an amount per ``[arms, machines]`` to a day."""
        self.entries[:, :, min(day, self.entries.shape[2] - 1), category] += amount

    def money(self) -> Array:
        """EUR per arm, machine and day."""
        return np.asarray(self.entries.sum(axis=-1))

    def by_category(self) -> dict[str, Array]:
        """EUR per arm, by category."""
        return dict(zip(CATEGORIES, np.moveaxis(self.entries.sum(axis=(1, 2)), -1, 0), strict=True))


def lost_production(delivered: Array, produces: NDArray[np.bool_], hours: float) -> Array:
    """EUR lost in a step: what production asked for and the machine did not deliver.

    ``delivered`` is the share of the asked speed, 0 to 1.
    """
    return PRICES.production_h * hours * np.where(produces, 1 - np.clip(delivered, 0, 1), 0.0)
