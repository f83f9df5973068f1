"""What the torch heads share: a seeded, single-threaded training loop that stops early on held-out rows."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from aiotkit.core.errors import DataError
from aiotkit.lab.heads.base import Ints, Progress, Rows, inner_folds

#: rows a step, most passes, passes without a better held-out loss before it stops
BATCH, PASSES, PATIENCE = 128, 120, 15


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """One thread and a seed of its own; the caller's generator and threads are given back."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def train_network(
    make: Callable[[], nn.Module],
    inputs: Tensor,
    rows: Rows,
    *,
    name: str,
    rate: float,
    decay: float,
    progress: Progress,
) -> nn.Module:
    """Train on all but a held-out contiguous part, and keep the weights of the least held-out loss.

    The part held out is the one of several whose states are most like the whole's.

    Raises:
        DataError: the loss is no number.
    """
    train, held = _held_out(rows)
    y, weight = torch.from_numpy(rows.y), torch.from_numpy(rows.weight.astype(np.float32))
    network = make()
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
    loss_of = nn.CrossEntropyLoss(reduction="none")
    best, kept, waited = float("inf"), copy.deepcopy(network.state_dict()), 0
    for done in range(PASSES):
        network.train()
        order = torch.from_numpy(train)[torch.randperm(len(train))]
        for batch in torch.split(order, BATCH):
            if len(batch) < 2:
                continue
            optimizer.zero_grad()
            loss = (loss_of(network(inputs[batch]), y[batch]) * weight[batch]).mean()
            _finite(float(loss.detach()), name, done)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
        network.eval()
        with torch.inference_mode():
            which = torch.from_numpy(held)
            now = float((loss_of(network(inputs[which]), y[which]) * weight[which]).mean())
        _finite(now, name, done)
        waited = 0 if now < best - 1e-4 else waited + 1
        if now < best - 1e-4:
            best, kept = now, copy.deepcopy(network.state_dict())
        progress((done + 1) / PASSES)
        if waited >= PATIENCE:
            break
    network.load_state_dict(kept)
    return network.eval()


def _finite(loss: float, name: str, done: int) -> None:
    if not np.isfinite(loss):
        raise DataError(
            f"family '{name}': the loss is {loss} in pass {done + 1}",
            do="Look for columns with extreme values; the other families do without it.",
        )


def _held_out(rows: Rows) -> tuple[Ints, Ints]:
    """The inner fold whose held-out states are closest to the whole's (total variation distance)."""
    share = np.bincount(rows.y, minlength=rows.classes) / len(rows.y)

    def apart(fold: tuple[Ints, Ints]) -> float:
        train, held = fold
        missing = rows.classes - len(np.unique(rows.y[train]))
        mine = np.bincount(rows.y[held], minlength=rows.classes) / len(held)
        return float(np.abs(mine - share).sum()) + 10 * missing

    return min(inner_folds(rows, 8), key=apart)


def array(tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """A weight as numpy."""
    return np.asarray(tensor.detach().numpy(), dtype=np.float32)
