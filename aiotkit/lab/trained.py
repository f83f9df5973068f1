"""A trained head: an ONNX graph, what it reads and says, and how it was chosen. No pickle anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import DataError
from aiotkit.lab.examples import Examples

FORMAT = 2
#: how many probe rows are kept at most
PROBES = 2000
_ABOUT = ("decision_digest", "family", "seed")
_NAMES = ("features", "columns", "signals", "states")


@dataclass(frozen=True)
class Trained:
    """A head and its evidence.

    Attributes:
        decision_digest: of the decision it was trained for.
        family: name of the family chosen.
        features: window features the front must give, in order.
        columns: what the head's input ``features`` holds, in order.
        signals: raw windows the head reads by name; empty for most.
        states: order of ``p``.
        head: ONNX graph: ``features`` float32 ``[batch, columns]`` (and signals) to ``p`` and ``novelty``.
        probe_x: float32 ``[n, columns]``: real rows, NaN among them.
        probe_p: float64 ``[n, states]``: what the library computes for them, not the graph.
        table: one row a family tried; see ``lab.train``.
        figures: of the family chosen.
        seed: of training.
        probe_windows: signal -> float32 ``[n, samples]`` for the same rows, where raw windows are read.
        notes: what was left out and why, in words.
        own_words: digest of the file that defines words of one's own among ``features``; '' = there are none.
    """

    decision_digest: str
    family: str
    features: tuple[str, ...]
    columns: tuple[str, ...]
    signals: tuple[str, ...]
    states: tuple[str, ...]
    head: bytes
    probe_x: NDArray[np.float32]
    probe_p: NDArray[np.float64]
    table: list[dict[str, Any]]
    figures: Mapping[str, float]
    seed: int
    probe_windows: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    own_words: str = ""

    def __post_init__(self) -> None:
        shapes = (self.probe_x.shape, self.probe_p.shape)
        wanted = ((len(self.probe_p), len(self.columns)), (len(self.probe_x), len(self.states)))
        if shapes != wanted or len(self.probe_x) > PROBES:
            raise DataError(f"head '{self.family}': probes", expected=str(wanted), found=str(shapes))

    @property
    def reads(self) -> set[str]:
        """The signals that the head reads, as features or raw."""
        return {*self.signals, *(c.partition(".")[0] for c in self.columns)} - {"history", "context"}

    def save(self, folder: Path) -> None:
        """Write ``head.onnx``, ``probes.npz`` and, last, ``trained.json``, which names their digests."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "head.onnx").write_bytes(self.head)
        windows = {f"window.{name}": values for name, values in sorted(self.probe_windows.items())}
        arrays: dict[str, Any] = {"x": self.probe_x, "p": self.probe_p} | windows
        np.savez(folder / "probes.npz", **arrays)
        about: dict[str, Any] = {"format": FORMAT, "notes": list(self.notes)}
        about |= {name: getattr(self, name) for name in _ABOUT}
        about |= {name: list(getattr(self, name)) for name in _NAMES}
        about |= {"own_words": self.own_words} if self.own_words else {}
        about |= {"table": _plain(self.table), "figures": _plain(dict(self.figures))}
        about |= {"head": digest(self.head), "probes": _digest_of(arrays)}
        (folder / "trained.json").write_bytes(canonical_bytes(about))

    @classmethod
    def load(cls, folder: Path) -> Trained:
        """Read what ``save`` wrote.

        Raises:
            DataError: the folder holds no trained head of format 1, or it was altered.
        """
        try:
            about = json.loads((folder / "trained.json").read_bytes())
            head = (folder / "head.onnx").read_bytes()
            with np.load(folder / "probes.npz", allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except (OSError, ValueError) as error:
            raise DataError(f"trained head in {folder.name}/", found=str(error)[:200]) from error
        said = (about.get("format"), about.get("head"), about.get("probes"))
        if said != (FORMAT, digest(head), _digest_of(arrays)):
            raise DataError(
                f"trained head in {folder.name}/",
                expected=f"format {FORMAT} with the digests it was saved with",
                found="another format" if said[0] != FORMAT else "altered files",
                do="Train again.",
            )
        windows = {n.partition(".")[2]: v for n, v in arrays.items() if n.startswith("window.")}
        names: dict[str, Any] = {name: tuple(about[name]) for name in (*_NAMES, "notes")}
        return cls(
            **{name: about[name] for name in _ABOUT},
            **names,
            head=head,
            probe_x=arrays["x"],
            probe_p=arrays["p"],
            table=about["table"],
            figures={k: float("nan") if v is None else v for k, v in about["figures"].items()},
            probe_windows=windows,
            own_words=about.get("own_words", ""),
        )


def probes(
    everything: Examples, signals: tuple[str, ...]
) -> tuple[NDArray[np.float32], dict[str, NDArray[np.float32]]]:
    """At most ``PROBES`` evenly spaced rows of all, labelled or not, and their raw windows."""
    which = np.unique(np.linspace(0, len(everything) - 1, min(PROBES, len(everything))).astype(np.int64))
    windows = {name: np.asarray(everything.windows[name][which], dtype=np.float32) for name in signals}
    return everything.x[which], windows


def _digest_of(arrays: Mapping[str, NDArray[Any]]) -> str:
    parts = [
        [name, str(values.dtype), list(values.shape), digest(np.ascontiguousarray(values).tobytes())]
        for name, values in sorted(arrays.items())
    ]
    return digest(canonical_bytes(parts))


def _plain(value: Any) -> Any:
    """JSON's own types; numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, bool | str | int) or value is None:
        return value
    number = float(value)
    return number if np.isfinite(number) else None
