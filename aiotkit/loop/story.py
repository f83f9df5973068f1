"""What happens to the demo's fleet: an outage, a killed device, a swapped one. Fixed shares of the run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from aiotkit.core.errors import LakeError
from aiotkit.loop.setting import Place


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps of the first round at which things happen; ``steps``: how many it has.

    A device is killed and comes back while the outage lasts.
    """

    steps: int

    @property
    def early(self) -> int:
        """The step before which somebody tries to learn from what there is by then."""
        return round(0.2 * self.steps)

    @property
    def outage(self) -> tuple[int, int]:
        """First step without collector and uplink, first step with both again."""
        return round(0.35 * self.steps), round(0.55 * self.steps)

    @property
    def kill(self) -> int:
        """The step in which one agent gets SIGKILL, with a packet in its hands."""
        return round(0.42 * self.steps)

    @property
    def restart(self) -> int:
        """The step before which the killed agent is started again."""
        return self.kill + 3

    @property
    def replace(self) -> int:
        """The step before which a device is replaced by the spare one."""
        return round(0.65 * self.steps)

    @property
    def move(self) -> int:
        """The step before which the replaced device, set up anew, takes the place of another."""
        return round(0.8 * self.steps)


@dataclass
class CollectorProcess:
    """``aiotkit collector run`` beside the uplink folder."""

    place: Place
    key: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; an earlier one may have been killed."""
        self.process = self._spawn("--every-s", "0.3")

    def _spawn(self, *more: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, "-m", "aiotkit.cli.main", "collector", "run", *more]
        argv += ["--lake", str(self.place.lake), "--inbox", str(self.place.uplink), "--key", str(self.key)]
        with (self.place.root / "collector.log").open("ab") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        """Ask it to finish its round and leave."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def take_the_rest(self) -> None:
        """One last time, for what came while it was leaving.

        Raises:
            LakeError: it failed; its log says why.
        """
        if self._spawn("--once").wait(300) != 0:
            raise LakeError("the collector failed", do="See collector.log in the work folder.")


def cut_uplink(place: Place) -> None:
    """Make the uplink folder unwritable for everyone, root too: a plain file takes its place."""
    place.uplink.rename(place.uplink.with_suffix(".away"))
    place.uplink.write_text("the share is not mounted\n")


def restore_uplink(place: Place) -> None:
    """The folder comes back as it was."""
    place.uplink.unlink()
    place.uplink.with_suffix(".away").rename(place.uplink)


@dataclass
class Deliveries:
    """Which record of which journal had arrived by when, read off the collector's watermarks."""

    place: Place
    marks: dict[tuple[str, str], list[tuple[int, int]]] = field(default_factory=dict)
    _read: dict[Path, int] = field(default_factory=dict)

    def look(self, now_us: int) -> None:
        """Note every watermark that changed; ``now_us`` is the plant's time."""
        if not self.place.uplink.is_dir():
            return
        for path in self.place.uplink.glob("*/watermark.json"):
            changed = path.stat().st_mtime_ns
            if self._read.get(path) == changed:
                continue
            self._read[path] = changed
            mark = watermark(path)
            if mark is not None:
                device, journal_id, seq = mark
                self.marks.setdefault((device, journal_id), []).append((seq, now_us))

    def arrived_us(self, device: str, journal_id: str, seq: int, last_us: int) -> int:
        """The plant's time at which a record was known to have arrived (``last_us`` when after the run)."""
        marks = self.marks.get((device, journal_id), [])
        return next((at for reached, at in marks if reached >= seq), last_us)


def watermark(path: Path) -> tuple[str, str, int] | None:
    """Device, journal and sequence number of a watermark file, for display only: it is not verified."""
    import base64

    try:
        payload = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
    except (OSError, ValueError, KeyError):
        return None  # being replaced this moment: seen at the next look
    return payload["device"], payload["journal_id"], payload["seq"]
