"""U12: a new bundle proves itself on the device, or the one before decides again."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from worlds.bundles import expectation, trust_and_keys
from worlds.device import (
    DEVICE,
    ListSource,
    RefusingDisk,
    actuator_process,
    driven,
    install,
    make_device,
    packet,
    say,
)
from worlds.graphs import model_archive, model_decision

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.replay import replay_record
from aiotkit.bundle.verify import verify_signed
from aiotkit.core.canonical import digest
from aiotkit.core.errors import BundleError, EngineError, SlotError
from aiotkit.core.records import EngineState, OperatorInput, Posture, RecordType
from aiotkit.edge.agent import Agent
from aiotkit.edge.build import open_agent
from aiotkit.edge.config import read_config
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.fallback import decide_without
from aiotkit.edge.journal import Journal
from aiotkit.edge.pointers import Content, Pointer
from aiotkit.edge.slots import Slots
from aiotkit.edge.sources import Packet
from aiotkit.edge.ward import ATTEMPTS, MEMORY, SAVE_EVERY

RULES = {"decisions": 24, "least": 6}
SICK = 25.0  # vibration whose peaks lie beyond 50


def device(folder: Path, *archives: bytes, **said: Any) -> Path:
    """A device on which these bundles were installed, the first of them proven."""
    first, *others = archives or (model_archive(1),)
    state = make_device(folder, archive=first, probation=RULES, **said)
    config = json.loads((state / "device.json").read_text())
    (state / "device.json").write_text(json.dumps(config | {"actuator": None}))
    slots(state).note_passed(slots(state).active().digest)
    for archive in others:
        install(state, archive)
    return state


def slots(state: Path) -> Slots:
    return Slots.open(RealDisk(state), trust_and_keys()[0], expectation())


@contextmanager
def agent(state: Path, *packets: Any, disk: RealDisk | None = None) -> Iterator[Agent]:
    with open_agent(state, read_config(state), disk=disk, source=ListSource(*packets)) as one:
        yield one


def run(state: Path, *packets: Packet) -> dict[str, Any]:
    """Decide these packets in one life that ends in order; its last health."""
    with agent(state, *packets) as one:
        for _ in packets:
            one.step()
        one.run(lambda: True, drain_s=0)
    return health(state)


def health(state: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((state / "health.json").read_text())
    return found


def records(state: Path, *kinds: RecordType) -> list[dict[str, Any]]:
    with Journal.open(RealDisk(state), DEVICE) as journal:
        return [json.loads(f.payload) for f in journal.frames() if f.type in kinds and f.payload]


def probation_events(state: Path) -> list[dict[str, Any]]:
    return [r for r in records(state, RecordType.SECURITY) if r["kind"] == "probation"]


def digest_of(archive: bytes) -> str:
    return verify_signed(archive, trust_and_keys()[0]).digest


GOOD = digest_of(model_archive(1))
TOO_SLOW = {"needs": {"deadline_ms": 0.001, "upload": "features"}}
ILL: dict[str, tuple[str, dict[str, Any], str]] = {
    "NaN outputs": ("nan", {}, "6 of 6 decisions were undecided"),
    "windows it does not know": ("novel", {}, "6 of 6 decisions were novel"),
    "too slow": ("well", TOO_SLOW, "6 of 6 decisions were late"),
    "raises": ("raises", {}, "indices element out of data bounds"),
    "wants a petabyte": ("memory", {}, "the bundle's engine failed"),
}


@pytest.mark.parametrize(("ill", "overrides", "words"), ILL.values(), ids=ILL.keys())
def test_U12_G3_an_unhealthy_bundle_is_rolled_back(tmp_path, ill, overrides, words):
    """Within a few decisions the previous bundle decides; no packet is lost; journal and health say why."""
    bad = model_archive(2, ill, **overrides)
    state = device(tmp_path, model_archive(1), bad)
    packets = [packet(i, vib=SICK) for i in range(8)]
    said = run(state, *packets)
    decided = records(state, RecordType.DECISION)
    assert [r["in"]["window_end_us"] for r in decided] == [p.at_us for p in packets]
    assert {r["bundle"] for r in decided[6:]} == {GOOD}
    assert decided[-1]["out"]["final"] == "run"
    (event,) = probation_events(state)
    assert (event["event"], event["bundle"], event["to"]) == ("rolled back", digest_of(bad), GOOD)
    assert words in event["why"]
    assert (said["bundle"], said["probation"], said["status"]) == (GOOD, None, "yellow")
    assert words in said["rolled_back"]
    with pytest.raises(BundleError, match=r"failed its probation .* aiotkit-edge readmit"):
        install(state, bad)
    assert words in run(state, packet(9))["rolled_back"]  # it is said after a restart too


def test_U12_what_failed_is_no_measure_for_what_comes_after_it(tmp_path):
    """The previous bundle, itself not proven yet, is not compared with the one that was just rolled back."""
    state = make_device(tmp_path, archive=model_archive(1), probation=RULES)
    install(state, model_archive(2, "nan"))
    run(state, *[packet(i, vib=SICK) for i in range(8)])
    trial = slots(state).trials.of(GOOD)
    assert trial is not None
    assert (trial.counts.decisions, trial.before) == (2, None)


def test_U12_a_refused_bundle_is_tried_again_once_a_person_lets_it_in(tmp_path):
    """Readmitted it may be installed, and is on probation from the beginning."""
    bad = model_archive(2, "nan")
    state = device(tmp_path, model_archive(1), bad)
    run(state, *[packet(i, vib=SICK) for i in range(7)])
    slots(state).readmit(digest_of(bad))
    install(state, bad)
    said = run(state, *[packet(i) for i in range(10, 13)])
    assert said["bundle"] == digest_of(bad)
    assert (said["probation"]["decisions"], said["probation"]["standing"]) == (3, "on probation")
    assert said["rolled_back"] == ""


def test_U12_a_healthy_bundle_passes_over_several_lives(tmp_path):
    """Restarts in order count for nothing; after its decisions the bundle is proven and stays so."""
    state = device(tmp_path, model_archive(1), model_archive(2))
    for life in range(6):
        said = run(state, *[packet(i) for i in range(4 * life, 4 * life + 4)])
        if life < 5:
            assert (said["probation"]["decisions"], said["probation"]["starts"]) == (4 * life + 4, 1)
            assert said["status"] == "green"
    assert said["probation"] is None
    assert slots(state).trials.passed == (GOOD, said["bundle"])
    assert probation_events(state) == []
    assert run(state, packet(30))["probation"] is None


def test_U12_a_proven_bundle_is_not_taken_back_for_one_bad_hour(tmp_path):
    """What fails after the probation goes to recovery, decision by decision, and shows in health."""
    state = device(tmp_path, model_archive(1), model_archive(2, "raises"))
    run(state, *[packet(i) for i in range(24)])
    said = run(state, packet(24, vib=SICK))
    assert (said["status"], said["bundle"]) == ("red", digest_of(model_archive(2, "raises")))
    assert "out of data bounds" in said["bundle_error"]
    said = run(state, packet(25))
    assert said["bundle_error"] == ""
    assert len(records(state, RecordType.DECISION)) == 25


def slow_recovery(counter: int, ill: str) -> bytes:
    return model_archive(counter, ill, recovery="slow")


def test_U12_G3_without_a_way_back_recovery_is_in_force_and_people_are_obeyed(tmp_path):
    """The only bundle raises: the agent lives, orders recovery, obeys people, and journals it all."""
    state = make_device(tmp_path, archive=slow_recovery(1, "raises"), probation=RULES)
    with actuator_process(state), agent(state, *[packet(i, vib=SICK) for i in range(9)]) as one:
        for _ in range(8):
            one.step()
        assert driven(state)[-1] == {"drive": {"speed": 0.6}}
        assert one.state.posture is not None
        say(state, "override", packet(7).at_us, action="run")
        one._listen()
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}
        say(state, "bypass", packet(7).at_us, on=True)
        one._listen()
        one.step()
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}
        one._tell_health()
        assert (health(state)["status"], health(state)["probation"]["standing"]) == ("red", "failed")
        one.run(lambda: True, drain_s=0)
    (event,) = probation_events(state)
    assert event["event"] == "no way back"
    assert "nothing to roll back to" in event["why"]
    raised = [r for r in records(state, RecordType.SECURITY) if r["kind"] == "bundle"]
    assert [r["final"] for r in raised] == ["slow"] * 8 + ["run", None]
    assert [r["mode"] for r in raised[-2:]] == ["override", "bypass"]
    assert records(state, RecordType.DECISION) == []


def test_U12_the_only_bundle_decides_again_once_it_can(tmp_path):
    """What made it fail is over: it decides as ever, and an install of a better one is taken at once."""
    state = make_device(tmp_path, archive=model_archive(1, "raises"), probation=RULES)
    with agent(state, packet(0, vib=SICK), packet(1), packet(2)) as one:
        for _ in range(2):
            one.step()
        assert one._ward.failing == ""
        install(state, model_archive(2))
        one._look_around()
        one.step()
        assert one._ward.trouble == ""
        one.run(lambda: True, drain_s=0)
    assert [r["bundle"] for r in records(state, RecordType.DECISION)][-1] == digest_of(model_archive(2))


@pytest.mark.parametrize("lives", [1, 2], ids=["agent runs on", "installed between two lives"])
def test_U12_a_place_that_slows_every_bundle_rolls_none_back(tmp_path, lives):
    """Every decision was late before and is late now: the new bundle is no worse, and passes."""
    new = model_archive(2, **TOO_SLOW)
    state = device(tmp_path, model_archive(1, **TOO_SLOW))
    packets = [packet(i) for i in range(60)]
    if lives == 2:
        run(state, *packets[:30])
        install(state, new)
        run(state, *packets[30:])
    else:
        with agent(state, *packets) as one:
            for i in range(60):
                if i == 30:
                    install(state, new)
                    one._look_around()
                one.step()
            one.run(lambda: True, drain_s=0)
    assert probation_events(state) == []
    assert digest_of(new) in slots(state).trials.passed


def test_U12_a_sensor_that_is_dead_for_all_proves_nothing_about_a_bundle(tmp_path):
    """No bundle can decide without vibration: the new one is neither rolled back nor proven by it."""
    state = device(tmp_path)
    dead = [packet(i, samples={"temp": packet(i).samples["temp"]}) for i in range(60)]
    run(state, *dead[:30])
    install(state, model_archive(2))
    said = run(state, *dead[30:])
    assert {r["out"]["proposed"] for r in records(state, RecordType.DECISION)} == {None}
    assert (said["bundle"], said["probation"]["decisions"]) == (digest_of(model_archive(2)), 0)
    assert probation_events(state) == []


def test_U12_a_sensor_that_dies_on_probation_rolls_no_bundle_back(tmp_path):
    """It had worked under the new bundle too: the probation waits, and is passed when the sensor is back."""
    state = device(tmp_path, model_archive(1), model_archive(2))
    run(state, *[packet(i) for i in range(6)])
    dead = [packet(i, samples={"temp": packet(i).samples["temp"]}) for i in range(6, 40)]
    said = run(state, *dead)
    assert (said["probation"]["decisions"], said["probation"]["standing"]) == (6, "on probation")
    run(state, *[packet(i) for i in range(40, 60)])
    assert digest_of(model_archive(2)) in slots(state).trials.passed


@pytest.mark.parametrize("lives", [1, 2], ids=["agent runs on", "installed between two lives"])
def test_U12_a_sensor_that_died_just_before_the_install_rolls_no_bundle_back(tmp_path, lives):
    """Most decisions before were fine, so that no share tells: the outage itself was there before."""
    state = device(tmp_path)
    fine = [packet(i) for i in range(20)]
    dead = [packet(i, samples={"temp": packet(i).samples["temp"]}) for i in range(20, 40)]
    if lives == 2:
        run(state, *fine, *dead[:2])
        install(state, model_archive(2))
        said = run(state, *dead[2:])
    else:
        with agent(state, *fine, *dead) as one:
            for i in range(40):
                if i == 22:
                    install(state, model_archive(2))
                    one._look_around()
                one.step()
            one.run(lambda: True, drain_s=0)
        said = health(state)
    assert probation_events(state) == []
    assert (said["probation"]["decisions"], said["probation"]["standing"]) == (0, "on probation")
    run(state, *[packet(i) for i in range(40, 70)])
    assert digest_of(model_archive(2)) in slots(state).trials.passed


def test_U12_a_bundle_that_does_not_understand_the_plant_is_rolled_back(tmp_path):
    """The same signals, healthy under the bundle before: a new one that believes none of them goes back."""
    signals = model_decision().model_dump(mode="json", by_alias=True, exclude_defaults=True)["signals"]
    narrow = {**signals, "vib": {**signals["vib"], "range": [-0.5, 100]}}
    state = device(tmp_path)
    with agent(state, *[packet(i) for i in range(40)]) as one:
        for _ in range(20):
            one.step()
        install(state, model_archive(2, signals=narrow))
        one._look_around()
        while one._parts.source.waiting:  # type: ignore[attr-defined]
            one.step()
        one.run(lambda: True, drain_s=0)
    (event,) = probation_events(state)
    assert "6 of 6 decisions were undecided; allowed 20%" in event["why"]
    assert records(state, RecordType.DECISION)[-1]["out"]["proposed"] == "run"


def test_U12_a_disk_that_refuses_delays_the_way_back_and_health_says_so(tmp_path):
    """Taken back as soon as the disk lets it; at most three tries are made meanwhile."""
    state = device(tmp_path, model_archive(1), model_archive(2, "nan"))
    disk = RefusingDisk(state)
    packets = [packet(i, vib=SICK) for i in range(30)]
    with agent(state, *packets, disk=disk) as one:
        for _ in range(5):
            one.step()
        disk.refuses = errno.ENOSPC
        for _ in range(3):
            one.step()
        ward = one._ward
        assert "cannot be taken back" in ward.trouble
        assert ward._attempts == 1
        for _ in range(5):
            ward._tried_s = 0.0  # ten seconds later
            one._look_around()
        assert ward._attempts == ATTEMPTS
        one._tell_health()
        assert (health(state)["status"], health(state)["probation"]["standing"]) == ("red", "failed")
        disk.refuses = 0
        one.run(lambda: True, drain_s=0)
    with agent(state, *packets[8:], disk=disk) as one:  # the next life tries again
        for _ in range(8):
            one.step()
        assert one._ward.digest == GOOD


def slip_in(state: Path, archive: bytes) -> None:
    """Put a bundle into force past the install, as if its runtime had been updated since."""
    name = digest_of(archive)
    content = Content(slot=1, archive=digest(archive), size=len(archive), bundle=name)
    (state / "slots" / "slot1.aiot").write_bytes(archive)
    (state / "slots" / "ptr0").write_bytes(Pointer(generation=2, floor=2, content=content).encode())


def broken(counter: int) -> bytes:
    """A well-signed bundle whose graph no runtime can open."""
    from worlds.graphs import model_files

    from aiotkit.bundle.unsigned import make_unsigned

    files = model_files() | {"graph.onnx": b"no graph"}
    return make_unsigned(model_decision(), files, release_counter=counter).archive(trust_and_keys()[1])


def test_U12_a_bundle_that_cannot_be_loaded_is_never_in_force(tmp_path):
    """Neither by an install, nor when found at a start: the bundle before decides, and it is refused."""
    state = device(tmp_path)
    with pytest.raises(BundleError, match="onnxruntime cannot open it"):
        install(state, broken(2))
    assert slots(state).active().digest == GOOD
    slip_in(state, broken(2))
    assert run(state, packet(0))["bundle"] == GOOD
    (event,) = probation_events(state)
    assert "it cannot be loaded" in event["why"]
    assert slots(state).trials.denial(digest_of(broken(2))) is not None


def test_U12_a_golden_case_that_raises_is_a_refusal(tmp_path):
    """Whatever the graph does while it is tried, the install answers with an error of ours."""
    from worlds.graphs import model_files

    from aiotkit.bundle.unsigned import make_unsigned

    files = model_files() | {
        "graph.onnx": model_files("raises")["graph.onnx"].replace(b"\x00\x00\x48\x42", bytes(4))
    }
    bad = make_unsigned(model_decision(), files, release_counter=2).archive(trust_and_keys()[1])
    state = device(tmp_path)
    with pytest.raises(BundleError, match="cannot be run"):
        install(state, bad)
    assert slots(state).active().digest == GOOD


def test_a_first_bundle_that_cannot_be_loaded_says_so(tmp_path):
    """Nothing else is there: no agent, and both reasons are told."""
    state = device(tmp_path)
    slip_in(state, broken(2))
    (state / "slots" / "slot0.aiot").unlink()
    with pytest.raises(BundleError, match=r"it cannot be loaded; found graph\.onnx"), agent(state):
        pass
    (state / "slots" / "slot1.aiot").unlink()
    with pytest.raises(SlotError, match="no slot holds a bundle"), agent(state):
        pass


def test_U12_what_was_refused_before_the_power_went_is_taken_back_at_the_start(tmp_path):
    """Denied and still in force: the next agent gives it up before its first decision."""
    state = device(tmp_path, model_archive(1), model_archive(2, "nan"))
    slots(state).give_up("6 of 6 decisions were undecided")
    archive = model_archive(2, "nan")
    content = Content(slot=1, archive=digest(archive), size=len(archive), bundle=digest_of(archive))
    forged = Pointer(generation=9, floor=2, content=content)
    (state / "slots" / "ptr0").write_bytes(forged.encode())
    assert slots(state).active().digest == digest_of(archive)
    assert run(state, packet(0, vib=SICK))["bundle"] == GOOD
    assert [r["bundle"] for r in records(state, RecordType.DECISION)] == [GOOD]


def test_old_decisions_are_forgotten(tmp_path):
    """What is told of a bundle is its last day or two, so that the next one is compared with now."""
    state = device(tmp_path)
    said = run(state, *[packet(i, vib=1.0) for i in range(MEMORY + 4)])
    assert said["tally"]["decisions"] == MEMORY // 2 + 4


def test_G3_whatever_goes_wrong_inside_an_engine_is_one_error(tmp_path):
    """Even what no graph could raise: the agent answers one kind of failure."""
    state = device(tmp_path)
    with agent(state) as one:
        nothing: Any = None
        with pytest.raises(EngineError, match="the bundle's engine failed: AttributeError"):
            one._ward.decide(EngineState(), replace(moment(), windows=nothing))


def test_a_trial_is_noted_now_and_then_only(tmp_path):
    """A probation costs the flash one small write every twelve decisions."""
    state = device(tmp_path, model_archive(1), model_archive(2))
    with agent(state, *[packet(i) for i in range(20)]) as one:
        written = []
        for _ in range(20):
            one.step()
            written.append((state / "slots" / "trials").stat().st_mtime_ns)
        assert len(set(written)) <= 3
        trial = slots(state).trials.of(one._ward.digest)
        assert trial is not None
        assert trial.counts.decisions == SAVE_EVERY


# -- bundles with a model, history and context


def test_G8_a_model_with_history_and_context_decides_restarts_and_replays(tmp_path):
    """The load changes what it proposes; a restart takes up its history; every record replays."""
    state = device(tmp_path, model_archive(1, told=True))

    def loaded(i: int, kw: float) -> Packet:
        one = packet(i)
        return replace(one, context=(("load", one.at_us, kw), ("mode", one.at_us, "production")))

    run(state, loaded(0, 80.0), loaded(1, 180.0), loaded(2, 80.0))
    history = records(state, RecordType.DECISION)[-1]["out"]["state"]["history"]
    with agent(state, loaded(3, 180.0)) as one:
        assert {name: list(values) for name, values in one.state.history.items()} == history
        one.step()
        one.run(lambda: True, drain_s=0)
    decided = records(state, RecordType.DECISION)
    assert [r["out"]["p"]["worn"] > 0.5 for r in decided][1::2] == [True, True]
    assert not decided[0]["out"]["p"]["worn"] > 0.5
    assert decided[0]["out"]["novelty"] == 0.0
    engine = Engine(slots(state).active().files)
    with Journal.open(RealDisk(state), DEVICE) as journal:
        pairs = list(itertools.pairwise(journal.frames()))
    replayed = [
        replay_record(engine, b.payload, a.payload) for a, b in pairs if b.type is RecordType.DECISION
    ]
    assert len(replayed) == 4
    assert all(one.identical for one in replayed)


def test_a_model_takes_over_from_a_rule_and_gives_back(tmp_path):
    """History goes on where it fits, in both directions; what is in force stays."""
    state = device(tmp_path, model_archive(1, told=True))
    with agent(state, *[packet(i) for i in range(9)]) as one:
        for _ in range(3):
            one.step()
        before = one.state.history["trend"]
        install(state, model_archive(2, "nan", told=True))
        one._look_around()
        assert one.state.history["trend"] == before
        one._parts.source.waiting = [packet(i, vib=SICK) for i in range(3, 12)]  # type: ignore[attr-defined]
        for _ in range(9):
            one.step()
        assert one._ward.digest != digest_of(model_archive(2, "nan", told=True))
        assert len(one.state.history["trend"]) == len(before)


# -- deciding without an engine


def moment(**changes: Any) -> Any:
    from aiotkit.core.records import DecisionInput

    return DecisionInput("a/b/1", 1_000_000, 1_000_000, {}, {}, **changes)


def test_G3_without_an_engine_recovery_people_and_trips_hold() -> None:
    """Recovery in doubt; an order of a person; nothing in bypass; a trip that a person must lift stays."""
    decision = model_decision(recovery="slow")
    plain = decide_without(decision, EngineState(), moment(), "it raised")
    assert (plain.final, plain.mode, plain.in_force) == ("slow", "recovery", "slow")
    assert "it raised" in plain.final_reason
    assert plain.command is not None
    ordered = decide_without(decision, EngineState(), moment(operator=OperatorInput(override="run")), "x")
    assert (ordered.final, ordered.mode) == ("run", "override")
    quiet = decide_without(decision, EngineState(), moment(operator=OperatorInput(bypass=True)), "x")
    assert (quiet.final, quiet.command) == (None, None)
    tripped = EngineState(posture=Posture("stop", 0, None))
    held = decide_without(decision, tripped, moment(), "x")
    assert (held.final, held.in_force, held.mode) == (None, "stop", "latched")
    assert not plain.verify.hit
