"""A small plant to look at: a fleet that lived in process for some days, and the lake its devices filled.

For notebooks and tests that must not wait for the demo. Everything is real but the plant: the device's code
decides, records are those of a journal (without its disk and its chain of digests), the desk learns, people's
reports come late or never. What inspectors found in the last round is not in the lake: their slips lie on the
desk.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.golden import golden_files
from aiotkit.bundle.unsigned import Unsigned
from aiotkit.core.canonical import JSON, canonical_bytes, digest
from aiotkit.core.decision import Decision
from aiotkit.core.errors import DataError
from aiotkit.core.records import Decided, DecisionInput, EngineState, decision_payload, pack_windows
from aiotkit.lab.decision_file import read_decision
from aiotkit.lab.features import export_front
from aiotkit.lab.labels import INSPECTION
from aiotkit.lab.outcomes import import_outcomes
from aiotkit.lab.recipe import recipe
from aiotkit.lab.train import train
from aiotkit.lake.assets import Assets, Assignment
from aiotkit.lake.blobs import Blobs
from aiotkit.lake.lake import Lake
from aiotkit.loop.aftermath import reports_frame
from aiotkit.loop.engine_arm import EngineArm
from aiotkit.loop.learning import rule_files
from aiotkit.loop.look import look, single_thread
from aiotkit.loop.maintenance import Report
from aiotkit.loop.twin import STEPS_PER_DAY, VIBRATION, Twin, subject_name
from aiotkit.release.bundle import assemble, build_bundle
from aiotkit.release.cases import golden_cases
from aiotkit.release.export import export
from aiotkit.release.pipeline import newest_us

FORMAT = 1
#: features that the sample's devices record and learn from: strength, impulses, envelope bands
RECIPE = ",".join(
    f"{axis}.{word}"
    for axis in VIBRATION
    for word in ("rms", "kurtosis", "crest", *(f"env_{i}of8" for i in range(1, 9)))
)
JOURNAL = "sample"
#: cases of the first bundle: it is shown, never installed
GOLDEN = 4
LAKE, DECISION, BUNDLES, SLIPS, ABOUT = "lake", "decision.yaml", "bundles", "slips.csv", "sample.json"
#: (stage in words, share of the whole that is done)
Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """``days`` under the written rule; then, if any, ``learned_days`` under what was learned from them."""

    seed: int = 4
    machines: int = 12
    days: int = 9
    learned_days: int = 0
    family: str = "lda"

    def to_json(self) -> JSON:
        """Plain data."""
        names = ("seed", "machines", "days", "learned_days", "family")
        return {"format": FORMAT} | {name: getattr(self, name) for name in names}


#: what the notebooks show: nine days by the rule, three by what was learned from them
SHOWN = Plan(learned_days=3)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the plant left in a folder. ``now_us`` is its present: nothing later has happened."""

    folder: Path
    now_us: int

    @property
    def decision(self) -> str:
        """The decision file."""
        return str(self.folder / DECISION)

    @property
    def lake(self) -> str:
        """The lake."""
        return str(self.folder / LAKE)

    @property
    def bundles(self) -> str:
        """The folder of every bundle that decided."""
        return str(self.folder / BUNDLES)

    @property
    def slips(self) -> pd.DataFrame:
        """What inspectors found in the last round, and nobody has entered yet."""
        return pd.read_csv(self.folder / SLIPS)


def sample_plant(folder: Path, plan: Plan = Plan(), tell: Tell | None = None) -> Sample:
    """Let the plant live, or take what an earlier call with the same plan left in the folder.

    Args:
        folder: where lake, decision file, bundles and slips go; made when it is not there.
        plan: how large, how long, whether something is learned.
        tell: told what is going on.

    Raises:
        DataError: the folder holds something else.
    """
    about = folder / ABOUT
    if about.is_file():
        said = json.loads(about.read_bytes())
        if said["plan"] == plan.to_json():
            return Sample(folder, int(said["now_us"]))
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(
            f"sample plant in {folder.name}/",
            expected="an empty folder, or what the same plan left there",
            found="something else" if about.is_file() else "something that is no sample, or half of one",
            do="Name another folder, or remove this one.",
        )
    folder.mkdir(parents=True, exist_ok=True)
    plant = _Plant(folder, plan, tell or _silent)
    plant.live()
    about.write_bytes(canonical_bytes({"plan": plan.to_json(), "now_us": plant.now_us}))
    return Sample(folder, plant.now_us)


@dataclass(frozen=True)
class Opened:
    """A lake and its decision, a user's own or the sample plant's.

    Attributes:
        lake: opened.
        decision: read.
        bundles: folder of those that decided; '' = not known.
        recipe: features to learn from, where nobody says which.
        newest_us: the last instant the lake knows of.
        is_sample: whether it is the sample plant.
    """

    lake: Lake
    decision: Decision
    bundles: str
    recipe: str
    newest_us: int
    is_sample: bool

    def now_us(self) -> int:
        """The present, µs UTC: the sample plant's own, or this computer's."""
        return self.newest_us if self.is_sample else time.time_ns() // 1000


def open_or_sample(
    lake: str, decision: str, folder: str, *, plan: Plan = SHOWN, tell: Tell | None = None
) -> Opened:
    """Open a user's lake, or where none is named the sample plant's.

    Args:
        lake: folder or address of a lake; '' = the sample plant.
        decision: its decision file.
        folder: where the sample plant lies, or is made.
        plan: of the sample plant.
        tell: told what is going on.

    Raises:
        DataError: one of lake and decision is named without the other.
    """
    if bool(lake) != bool(decision):
        raise DataError(
            "lake and decision", expected="both, or neither for the sample plant", found=lake or decision
        )
    if lake:
        opened = Lake.open(lake)
        return Opened(opened, read_decision(Path(decision)), "", "auto", newest_us(opened), is_sample=False)
    plant = sample_plant(Path(folder), plan, tell)
    wanted = read_decision(Path(plant.decision))
    return Opened(Lake.open(plant.lake), wanted, plant.bundles, RECIPE, plant.now_us, is_sample=True)


def _silent(stage: str, share: float) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True)
class _Note:
    """One decision as it goes into the lake; ``window`` None = it never left the device."""

    row: dict[str, Any]
    window: bytes | None


class _NotingEngine(Engine):
    """An engine whose every decision is written down as a device writes it."""

    def __init__(self, bundle: Unsigned, notes: list[_Note]) -> None:
        super().__init__(bundle.files)
        self._bundle, self._notes = bundle.digest, notes

    def decide(self, state: EngineState, given: DecisionInput) -> tuple[Decided, dict[str, float]]:
        _, machine, step = given.seed.split("/")
        device, seq = device_name(int(machine)), int(step) + 1
        given = replace(given, seed=f"{device}/{JOURNAL}/{seq}")
        decided, spans = super().decide(state, given)
        window = pack_windows(given.windows)
        about = (self.decision.id, self.decision.revision)
        payload = decision_payload(
            given,
            state,
            decided,
            window_digest=digest(window),
            bundle=self._bundle,
            timing=spans,
            decision=about,
        )
        row = {
            "device": device,
            "journal_id": JOURNAL,
            "seq": seq,
            "type": "DECISION",
            "head": "",
            "withheld": False,
        }
        row |= {"digest": digest(payload), "length": len(payload), "payload": payload.decode()}
        row |= {"decision_id": about[0], "revision": about[1], "bundle": self._bundle, "at": given.now_us}
        row |= {"window": digest(window), "verdict": decided.verdict.name}
        row |= {name: getattr(decided, name) for name in ("proposed", "final", "in_force", "mode")}
        row |= {"verify_p": decided.verify.p, "verify_hit": decided.verify.hit}
        row |= {"upload_p": decided.upload.p, "upload_hit": decided.upload.hit}
        self._notes.append(_Note(row, window if decided.upload.hit else None))
        return decided, spans


class _NotingArm(EngineArm):
    """Devices that keep what they decide."""

    def __init__(self, bundle: Unsigned, machines: int, names: tuple[str, ...]) -> None:
        self.notes: list[_Note] = []
        self._bundle = bundle
        super().__init__("sample", bundle.files, machines, names)

    def put(self, bundle: Unsigned) -> None:
        """Put another bundle into force."""
        self._bundle = bundle
        self.release(bundle.files)

    def release(self, files: Mapping[str, bytes]) -> None:
        self._engine, self.files = _NotingEngine(self._bundle, self.notes), files


def device_name(machine: int) -> str:
    """The device at a machine.

    >>> device_name(0)
    'edge-01'
    """
    return f"edge-{machine + 1:02d}"


@dataclass
class _Plant:
    folder: Path
    plan: Plan
    tell: Tell
    decision: Decision = field(init=False)

    def __post_init__(self) -> None:
        # windows leave where they tell something, as in a plant with a thin line
        text = (resources.files("aiotkit.loop") / "decisions/bearing.yaml").read_text(encoding="utf-8")
        path = self.folder / DECISION
        path.write_text(text.replace("upload: raw", "upload: selected"), encoding="utf-8")
        self.decision = read_decision(path)
        self.days = self.plan.days + self.plan.learned_days
        self.twin = Twin(self.plan.seed, self.plan.machines, self.days)

    @property
    def now_us(self) -> int:
        """The plant's present."""
        return self.twin.time_us(self.twin.step)

    def live(self) -> None:
        """From the first day to the last, then into the lake."""
        self.tell("the sample plant: building the first bundle", 0.0)
        names = recipe(self.decision, RECIPE)
        files = rule_files(self.decision, *export_front(self.decision, names))
        files |= golden_files(files, golden_cases(self.decision)[:GOLDEN])
        first = self._keep(assemble(self.decision, files, release_counter=1))
        arm = _NotingArm(first, self.plan.machines, names)
        self._until(arm, self.plan.days)
        learned_us = self.now_us
        if self.plan.learned_days:
            arm.put(self._learn(arm))
            self._until(arm, self.days)
        reports = self.twin.reports_until(self.now_us, 0)
        slips = [r for r in reports if r.source == INSPECTION and r.at_us >= learned_us]
        reports_frame(slips).to_csv(self.folder / SLIPS, index=False)
        self._store(arm.notes, [r for r in reports if r not in slips])
        self.tell("the sample plant", 1.0)

    def _until(self, arm: EngineArm, day: int) -> None:
        with single_thread():
            while self.twin.step < day * STEPS_PER_DAY:
                self.twin.advance(arm.order(look(self.twin), slice(0, 1), self.twin))
                self.tell(f"the sample plant: day {self.twin.step // STEPS_PER_DAY + 1}", self._share())

    def _share(self) -> float:
        return 0.9 * self.twin.step / self.twin.steps

    def _learn(self, arm: _NotingArm) -> Unsigned:
        self.tell("the sample plant: learning from the first days", self._share())
        examples = arm.diary.examples(self.twin.reports_until(self.now_us, 0), self.now_us)
        found = train(examples, self.decision, families=(self.plan.family,), seed=self.plan.seed)
        made = export(self.decision, found.trained)
        return self._keep(build_bundle(self.decision, release_counter=2, model=made, reference=examples))

    def _keep(self, bundle: Unsigned) -> Unsigned:
        place = self.folder / BUNDLES
        place.mkdir(exist_ok=True)
        name = f"{self.decision.id}-{bundle.manifest.release_counter}.aiot"
        (place / name).write_bytes(bundle.archive())
        return bundle

    def _store(self, notes: list[_Note], reports: list[Report]) -> None:
        self.tell("the sample plant: filling the lake", 0.92)
        lake = Lake.create(self.folder / LAKE)
        assets = Assets(lake)
        for machine in range(self.plan.machines):
            watched = Assignment(device_name(machine), subject_name(machine), self.twin.start_us)
            assets.assign(watched, recorded_us=self.twin.start_us)
        kept = {note.row["window"]: note.window for note in notes if note.window is not None}
        Blobs(lake).put(kept)
        columns: dict[str, Any] = {name: [note.row[name] for note in notes] for name in notes[0].row}
        columns["at"] = pa.array(columns["at"], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
        lake.append("decisions", pa.table(columns))
        import_outcomes(lake, reports_frame(reports), self.decision, imported_us=self.now_us)
