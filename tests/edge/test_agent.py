from __future__ import annotations

import errno
import itertools
import json
import os
import resource
import selectors
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from worlds.bundles import signing_key
from worlds.device import (
    DEVICE,
    START_US,
    ListSource,
    RefusingDisk,
    actuator_process,
    bundle,
    driven,
    install,
    make_device,
    packet,
    say,
    write_packets,
)

from aiotkit.bundle.engine import Engine
from aiotkit.bundle.replay import replay_record
from aiotkit.core.errors import JournalError, SlotError, SourceError, StorageError
from aiotkit.core.frames import Frame
from aiotkit.core.gates import Change
from aiotkit.core.records import MAX_US, EngineState, Posture, RecordType, input_from_json
from aiotkit.edge.agent import MAX_BAD_IN_A_ROW, Agent
from aiotkit.edge.build import open_agent
from aiotkit.edge.clocks import STANDING
from aiotkit.edge.config import read_config
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal
from aiotkit.edge.keeper import Keeper
from aiotkit.edge.operator import open_questions
from aiotkit.edge.restore import rewind
from aiotkit.edge.slots import Slots
from aiotkit.edge.sources import BadPacket, Packet, Samples
from aiotkit.loop.link import Link, wait_until

WILD = 9.0  # mm/s rms: above the rule's 7.1
S = 1_000_000


@contextmanager
def agent(state: Path, *packets: Any, disk: RealDisk | None = None) -> Iterator[tuple[Agent, ListSource]]:
    source = ListSource(*packets)
    with open_agent(state, read_config(state), disk=disk, source=source) as one:
        yield one, source


def steps(one: Agent, count: int = 1) -> None:
    for _ in range(count):
        one.step()


def records(state: Path, *kinds: RecordType) -> list[dict[str, Any]]:
    """The payloads of one's journal, once the agent has let go of it."""
    with Journal.open(RealDisk(state), DEVICE) as journal:
        return [json.loads(f.payload) for f in journal.frames() if f.type in kinds and f.payload]


def frames(state: Path) -> list[Frame]:
    with Journal.open(RealDisk(state), DEVICE) as journal:
        return list(journal.frames())


def health(state: Path) -> dict[str, Any]:
    return json.loads((state / "health.json").read_text())


def run_out(one: Agent, source: ListSource) -> None:
    """Run until the source has nothing left."""
    while source.waiting:
        one.step()
    source.ended = True
    one.run(lambda: False, drain_s=0.0)


def test_every_packet_is_decided_journaled_and_credited(tmp_path):
    """One decision a packet, each right behind its window, each replayable to the same bytes."""
    state = make_device(tmp_path)
    packets = [packet(i, vib=WILD if i == 3 else 1.0) for i in range(6)]
    with actuator_process(state), agent(state, *packets) as (one, source):
        run_out(one, source)
        assert source.credits == [p.at_us for p in packets]
    files = Slots.open(RealDisk(state), *_trusted(state)).active().files
    engine = Engine(files)
    kept = frames(state)
    pairs = [(a, b) for a, b in itertools.pairwise(kept) if b.type is RecordType.DECISION]
    assert len(pairs) == 6
    for window, decision in pairs:
        assert window.type is RecordType.WINDOW
        assert decision.payload is not None
        assert replay_record(engine, decision.payload, window.payload).identical
        assert json.loads(decision.payload)["in"]["seed"].endswith(f"/{decision.seq}")
    finals = [json.loads(d.payload)["out"]["final"] for _, d in pairs if d.payload]
    assert finals[:4] == ["run", "run", "run", "slow"]
    assert driven(state)[:2] == [{"drive": {"speed": 1.0}}, {"drive": {"speed": 0.6}}]
    (result, *_) = records(state, RecordType.RESULT)
    assert (result["action"], result["status"]) == ("slow", "sent")


def _trusted(state: Path) -> tuple[Any, Any]:
    from worlds.bundles import expectation, trust_and_keys

    return trust_and_keys()[0], expectation()


def test_a_restart_goes_on_where_it_was(tmp_path):
    """The same packets again are not decided twice; history and what is in force are taken up."""
    state = make_device(tmp_path)
    packets = [packet(i, vib=WILD) for i in range(8)]
    with actuator_process(state):
        with agent(state, *packets[:5]) as (one, source):
            run_out(one, source)
            before = one.state
        with agent(state, *packets) as (one, source):
            assert one.state == before
            assert before.posture is not None
            run_out(one, source)
            assert len(source.credits) == 8
    ends = [r["in"]["window_end_us"] for r in records(state, RecordType.DECISION)]
    assert ends == [p.at_us for p in packets]


def test_one_agent_at_a_time(tmp_path):
    """A second agent on the same folder is refused while the first holds the journal."""
    state = make_device(tmp_path)
    with agent(state), pytest.raises(StorageError, match="in use"), agent(state):
        pass


def test_a_device_without_a_bundle_says_what_to_do(tmp_path):
    """No bundle: no agent, and the message names the command."""
    state = make_device(tmp_path)
    for path in (state / "slots").iterdir():
        path.unlink()
    with pytest.raises(SlotError, match="aiotkit-edge install"), agent(state):
        pass


# -- intent and result


def strong(i: int) -> Packet:
    """Vibration that asks for the irreversible stop: strong and spiky."""
    values = np.random.default_rng(i).normal(size=256)
    values[::32] = 8
    values *= 13 / np.sqrt(np.mean(values**2))
    one = packet(i)
    return Packet(
        one.at_us,
        {**one.samples, "vib": Samples(one.at_us - 4 * S, 64.0, values.astype(np.float32))},
        one.points,
        one.context,
    )


def acting_bundle(counter: int = 2) -> bytes:
    return bundle(counter, autonomy={"mode": "act"})


class WatchingDisk(RealDisk):
    """Notes, at every sync of the journal, how many commands the driver had had."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.synced: list[tuple[int, bytes]] = []
        self._written = b""

    def append(self, path: str, data: bytes) -> None:
        self._written += data
        super().append(path, data)

    def sync(self, path: str) -> None:
        super().sync(path)
        self.synced.append((len(driven(self.root)), self._written))


def test_the_intent_of_an_irreversible_action_is_durable_before_it_is_sent(tmp_path):
    """When the driver hears of the stop, decision and intent have been synced."""
    state = make_device(tmp_path, archive=acting_bundle())
    disk = WatchingDisk(state)
    with actuator_process(state), agent(state, strong(0), disk=disk) as (one, _):
        steps(one)
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        before_it = [written for commands, written in disk.synced if commands == 1]
        assert any(b'"action":"stop"' in written and b'"command"' in written for written in before_it)
        one.run(lambda: True, drain_s=0)
    kinds = [f.type.name for f in frames(state)]
    assert kinds[:4] == ["WINDOW", "DECISION", "INTENT", "RESULT"]


def test_an_intent_without_result_is_settled_at_the_next_start(tmp_path):
    """A killed agent leaves an intent; its successor writes 'unknown' and asks what is in force."""
    state = make_device(tmp_path, archive=acting_bundle())
    with agent(state, strong(0)) as (one, source):
        run_out(one, source)  # nobody holds the actuator: the command failed
    with Journal.open(RealDisk(state), DEVICE) as journal:
        intent = journal.last(RecordType.INTENT)
        assert intent is not None
        assert intent.payload is not None
        seq = journal.append(RecordType.INTENT, intent.payload)
        journal.commit()
    with agent(state) as (one, source):
        run_out(one, source)
        assert one.state.posture is None
    last = records(state, RecordType.RESULT)[-1]
    assert (last["status"], last["intent"], last["action"]) == ("unknown", seq, "stop")
    with agent(state) as (one, source):
        run_out(one, source)
    assert len([r for r in records(state, RecordType.RESULT) if r["status"] == "unknown"]) == 1


def test_what_the_actuator_does_not_know_is_not_in_force(tmp_path):
    """A failed command does not count as in force, and is ordered again when it is due again."""
    state = make_device(tmp_path)
    with agent(state, packet(0, vib=WILD)) as (one, _):
        steps(one)
        assert one.state.posture is None
        assert one.state.changes == ()
        one.run(lambda: True, drain_s=0)
    (result,) = records(state, RecordType.RESULT)
    assert (result["status"], "cannot be reached" in result["why"]) == ("failed", True)
    with actuator_process(state), agent(state, packet(1, vib=WILD)) as (one, _):
        steps(one)
        assert one.state.posture is not None
        assert driven(state)[-1] == {"drive": {"speed": 0.6}}


def test_an_actuator_restarted_behind_the_agents_back_is_noticed(tmp_path):
    """A timed command that the actuator process forgot is ordered anew by the next decision."""
    state = make_device(tmp_path)
    with agent(state, packet(0, vib=WILD), packet(1, vib=WILD), packet(2, vib=WILD)) as (one, _):
        with actuator_process(state):
            steps(one)
        with actuator_process(state):
            assert driven(state)[-1] == {"drive": {"speed": 1.0}} or steps(one) is None
            steps(one)
            assert one.state.posture is not None
            assert driven(state)[-1] == {"drive": {"speed": 0.6}}


# -- storage trouble


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
def test_J6_a_disk_that_refuses_stops_actuation_and_recovers(tmp_path, number):
    """Nothing moves while nothing can be journaled; health is red; afterwards all is journaled and moves."""
    state = make_device(tmp_path)
    disk = RefusingDisk(state)
    packets = [packet(0), *[packet(i, vib=WILD) for i in (1, 2, 3)]]
    with actuator_process(state), agent(state, *packets, disk=disk) as (one, _):
        if True:
            steps(one)
            one._keeper.commit()
            disk.refuses = number
            one._keeper.append(RecordType.RESULT, {})
            assert not one._keeper.commit()
            steps(one, 2)
            assert len(driven(state)) == 1
            assert one.state.posture is None
            one._tell_health()
            assert (health(state)["mode"], health(state)["status"]) == ("stop_actuating", "red")
            disk.refuses = 0
            steps(one)
            assert driven(state)[-1] == {"drive": {"speed": 0.6}}
            one._tell_health()
            assert (health(state)["mode"], health(state)["status"]) == ("act", "green")
            one.run(lambda: True, drain_s=0)
    assert len(records(state, RecordType.DECISION)) == 4
    statuses = [r["status"] for r in records(state, RecordType.RESULT) if "status" in r]
    assert statuses == ["withheld", "withheld", "sent"]


def test_J6_irreversible_actions_never_go_unlogged(tmp_path):
    """Even where reversible actions may: an intent that cannot be made durable is not carried out."""
    state = make_device(tmp_path, archive=acting_bundle(), journal={"unlogged": "reversible"})
    disk = RefusingDisk(state)
    with actuator_process(state), agent(state, strong(0), packet(1, vib=WILD), disk=disk) as (one, _):
        disk.refuses = errno.ENOSPC
        steps(one)
        assert len(driven(state)) == 1
        steps(one)
        assert driven(state)[-1] == {"drive": {"speed": 0.6}}
        disk.refuses = 0


def test_J6_a_full_journal_that_must_not_drop_stops_actuation(tmp_path):
    """on_full: stop and nobody collecting: decisions go on, actuation does not."""
    state = make_device(tmp_path, journal={"quota_bytes": 1 << 16, "on_full": "stop"})
    with actuator_process(state), agent(state, *[packet(i, vib=WILD) for i in range(60)]) as (one, source):
        while source.waiting:
            one.step()
        assert not one._keeper.writable
        moved = len(driven(state))
        source.waiting = [packet(i, vib=WILD) for i in range(60, 70)]
        while source.waiting:
            one.step()
        assert one.counts.decided == 70
        assert len(driven(state)) == moved


# -- people


def asked_of(state: Path, kind: str = "") -> list[dict[str, Any]]:
    """The open questions of a kind; by default all but requests to look, which are drawn at random."""
    found = open_questions(RealDisk(state))
    return [q for q in found if (q["kind"] == kind if kind else q["kind"] != "inspect")]


def question(state: Path) -> dict[str, Any]:
    (one,) = asked_of(state)
    return one


def test_a_drawn_decision_asks_people_to_look(tmp_path):
    """Random verification asks for the machine's state in the outbox; it stands until the horizon is over."""
    state = make_device(tmp_path, archive=bundle(2, verify={"share": 1.0}))
    day = 86_400
    with agent(state, packet(0), packet(1)) as (one, _):
        steps(one)
        (first,) = asked_of(state, "inspect")
        assert first["id"].endswith("/2")
        assert first["until_us"] == one._parts.clock.now_us() + day * S
        steps(one)
        assert len(asked_of(state, "inspect")) == 2
        one._people._desk.end_checks(first["until_us"])
        assert len(asked_of(state, "inspect")) == 1


def test_an_answer_is_decided_at_once(tmp_path):
    """A confirmed stop is carried out without waiting for the next packet; the question closes."""
    state = make_device(tmp_path)
    with actuator_process(state), agent(state, strong(0)) as (one, _):
        steps(one)
        asked = question(state)
        assert (asked["kind"], asked["proposed"]) == ("confirm", "stop")
        assert len(driven(state)) == 1
        say(state, "answer", START_US + 4 * S, question=asked["id"], action="stop")
        one._listen()
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        assert asked_of(state) == []
        one.run(lambda: True, drain_s=0)
    assert [r["question"]["proposed"] for r in records(state, RecordType.QUESTION)] == ["stop"]
    assert records(state, RecordType.ANSWER)[0]["message"]["action"] == "stop"
    assert len(records(state, RecordType.INTENT)) == 1


def test_an_answer_to_no_question_moves_nothing(tmp_path):
    """A stale answer is journaled and has no effect."""
    state = make_device(tmp_path)
    with actuator_process(state), agent(state, packet(0)) as (one, _):
        steps(one)
        say(state, "answer", START_US + 4 * S, question="pump-1/abc/2", action="stop")
        one._listen()
        assert len(driven(state)) == 1
        assert "is not open" in one.counts.last_error
        one.run(lambda: True, drain_s=0)
    assert len(records(state, RecordType.ANSWER)) == 1


def test_G7_an_override_is_obeyed_once_even_without_a_window(tmp_path):
    """A person's order needs no telemetry; the same message again is a security record."""
    state = make_device(tmp_path, clock="system")
    with actuator_process(state), agent(state) as (one, _):
        say(state, "override", time.time_ns() // 1000, action="slow")
        envelope = next((state / "operator/inbox").iterdir()).read_bytes()
        one._listen()
        assert driven(state)[-1] == {"drive": {"speed": 0.6}}
        moved = len(driven(state))
        (state / "operator/inbox/again.json").write_bytes(envelope)
        one._listen()
        assert len(driven(state)) == moved
        one.run(lambda: True, drain_s=0)
    (override,) = records(state, RecordType.OVERRIDE)
    assert override["message"]["operator"] == "anna"
    assert "seen before" in records(state, RecordType.SECURITY)[-1]["why"]


def test_G7_an_override_ends_a_trip(tmp_path):
    """After service a person orders 'run': the irreversible stop is in force no more, here and there."""
    state = make_device(tmp_path, archive=acting_bundle())
    with actuator_process(state), agent(state, strong(0), packet(1), packet(2)) as (one, _):
        steps(one, 2)
        assert one.state.posture is not None
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        say(state, "override", START_US + 8 * S, action="run")
        one._listen()
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}
        steps(one)
        assert one.state.posture is None
        one.run(lambda: True, drain_s=0)
    assert records(state, RecordType.DECISION)[-1]["out"]["final"] == "run"


def test_G7_bypass_moves_nothing_and_holds_over_restarts(tmp_path):
    """In maintenance decisions are journaled and nothing is ordered, until it is switched off."""
    state = make_device(tmp_path)
    with actuator_process(state):
        with agent(state, packet(0)) as (one, source):
            say(state, "bypass", START_US, on=True)
            run_out(one, source)
        with agent(state, packet(1, vib=WILD), packet(2, vib=WILD)) as (one, _):
            steps(one)
            assert len(driven(state)) == 1
            say(state, "bypass", START_US + 8 * S, on=False)
            one._listen()
            steps(one)
            assert driven(state)[-1] == {"drive": {"speed": 0.6}}
            one.run(lambda: True, drain_s=0)
    assert [r["out"]["mode"] for r in records(state, RecordType.DECISION)][1] == "bypass"
    assert len(records(state, RecordType.OVERRIDE)) == 2


def test_G7_a_stop_from_the_inbox_is_obeyed_even_on_a_full_disk(tmp_path):
    """A stop waits for no journal; decisions afterwards are in bypass and the agent says 'stopped'."""
    state = make_device(tmp_path)
    disk = RefusingDisk(state)
    with (
        actuator_process(state),
        agent(state, packet(0, vib=WILD), packet(1, vib=WILD), disk=disk) as (one, _),
    ):
        steps(one)
        disk.refuses = errno.ENOSPC
        say(state, "stop", START_US + 4 * S)
        one._listen()
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        disk.refuses = 0
        steps(one)
        assert one.state.posture is None
        one._tell_health()
        assert (health(state)["mode"], health(state)["stopped"]) == ("stopped", True)
        one.run(lambda: True, drain_s=0)
    assert records(state, RecordType.DECISION)[-1]["out"]["mode"] == "bypass"
    assert any(r.get("event", {}).get("kind") == "stop" for r in records(state, RecordType.OVERRIDE))


def test_T8_unsigned_words_are_security_records(tmp_path):
    """A message by an unknown key is journaled as what it is, and changes nothing."""
    state = make_device(tmp_path)
    with actuator_process(state), agent(state, packet(0)) as (one, source):
        say(state, "override", START_US, action="slow", key=signing_key("mallory"))
        run_out(one, source)
    assert len(driven(state)) == 1
    assert "found 0" in records(state, RecordType.SECURITY)[-1]["why"]


# -- telemetry


def damaged(i: int, **changes: Any) -> Packet:
    return packet(i, vib=WILD, **changes)


def _with(signal: str, values: Any) -> dict[str, Any]:
    one = packet(1, vib=WILD)
    old = one.samples[signal]
    return {"samples": {**one.samples, signal: Samples(old.first_us, old.rate_hz, np.float32(values))}}


STILL = np.full(256, 9.0)
BAD = {
    "nan": _with("vib", np.full(256, np.nan)),
    "inf": _with("vib", np.full(256, np.inf)),
    "1e38": _with("vib", np.full(256, 1e38)),
    "stuck": _with("vib", STILL),
    "cut short": _with("vib", np.full(20, 9.0)),
    "empty": _with("vib", []),
    "missing": {"samples": {}},
    "no context": {"context": ()},
    "stale context": {"context": (("load", START_US - 3600 * S, 80.0), ("mode", START_US, "production"))},
    "a word for a number": {
        "context": (("load", START_US + 8 * S, "80"), ("mode", START_US + 8 * S, "production"))
    },
    "a number for a word": {"context": (("load", START_US + 8 * S, 80.0), ("mode", START_US + 8 * S, 1.0))},
    "nan context": {
        "context": (("load", START_US + 8 * S, float("nan")), ("mode", START_US + 8 * S, "production"))
    },
    "unknown word": {"context": (("load", START_US + 8 * S, 80.0), ("mode", START_US + 8 * S, "prodüction"))},
    "future context": {
        "context": (("load", START_US + 8000 * S, 80.0), ("mode", START_US + 8 * S, "production"))
    },
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD.keys())
def test_G1_doubtful_telemetry_ends_in_recovery(tmp_path, changes):
    """Vibration that would slow the pump does not, once anything it rests on is in doubt."""
    state = make_device(tmp_path)
    with actuator_process(state), agent(state, damaged(1, **changes)) as (one, source):
        run_out(one, source)
    (decision,) = records(state, RecordType.DECISION) or [None]
    assert decision is None or (decision["out"]["final"], decision["out"]["mode"]) == ("run", "recovery")
    assert driven(state) == [{"drive": {"speed": 1.0}}]


def test_G1_the_same_packet_undamaged_does_slow_the_pump(tmp_path):
    """The test above can fail: without damage the pump is slowed."""
    state = make_device(tmp_path)
    with actuator_process(state), agent(state, damaged(1)) as (one, source):
        run_out(one, source)
    assert driven(state)[-1] == {"drive": {"speed": 0.6}}


def test_G2_old_packets_again_move_nothing(tmp_path):
    """Replayed telemetry is from the past: no decision on it, whatever it shows."""
    state = make_device(tmp_path)
    with actuator_process(state), agent(state, packet(5), damaged(3), damaged(2), packet(6)) as (one, source):
        run_out(one, source)
    assert driven(state) == [{"drive": {"speed": 1.0}}]
    decided = records(state, RecordType.DECISION)
    assert [r["in"]["window_end_us"] for r in decided] == [packet(5).at_us, packet(6).at_us]


def test_G1_bad_packets_are_refused_counted_and_credited(tmp_path):
    """A refused packet costs nothing but itself; a source of nothing else is given up."""
    state = make_device(tmp_path)
    bad = BadPacket("packet: its keys")
    with agent(state, bad, packet(0), bad) as (one, source):
        run_out(one, source)
        assert source.credits == [None, packet(0).at_us, None]
        assert (one.counts.decided, one.counts.bad_packets) == (1, 2)
    assert [r["kind"] for r in records(state, RecordType.SECURITY)] == ["source"]
    with agent(state, *[bad] * MAX_BAD_IN_A_ROW) as (one, _), pytest.raises(SourceError, match="in a row"):
        one.run(lambda: False, drain_s=0)


def test_records_hold_what_was_looked_at(tmp_path):
    """The recorded input is the engine's input: windows by digest, context with ages, faults in words."""
    state = make_device(tmp_path)
    with agent(state, damaged(1, **BAD["stuck"])) as (one, source):
        run_out(one, source)
    (record,) = records(state, RecordType.DECISION)
    given, _ = input_from_json(record["in"], {})
    assert "stuck" in given.faults["vib"]
    assert given.context["load"].age_s == 0.0
    assert {"wall_us", "monotonic_us", "stages_us"} <= set(record["timing"])


# -- uplink, bundle, end


def test_J3_deciding_goes_on_without_an_uplink(tmp_path):
    """A missing uplink folder shows in health, and delays nothing; it is used when it comes."""
    state = make_device(tmp_path, uplink="../later")
    with agent(state, *[packet(i) for i in range(5)]) as (one, source):
        run_out(one, source)
        assert one.counts.decided == 5
        assert health(state)["status"] in ("yellow", "red")
        assert "No such file" in health(state)["uplink_error"]
    (tmp_path / "later").mkdir()
    with agent(state) as (one, source):
        source.ended = True
        one.run(lambda: False, drain_s=5)
        assert health(state)["sent_seq"] == health(state)["durable_seq"]
    assert list((tmp_path / "later" / DEVICE).glob("batch-*"))


def test_a_new_bundle_is_taken_while_running(tmp_path):
    """An install by another process is noticed; history goes on, and records name the new bundle."""
    state = make_device(tmp_path)
    with agent(state, packet(0), packet(1), packet(2)) as (one, source):
        steps(one, 2)
        history = one.state.history
        assert history
        install(state, bundle(2, rule=[{"otherwise": "slow"}], revision=2))
        one._look_around()
        assert one.state.history == history
        run_out(one, source)
    bundles = [r["bundle"] for r in records(state, RecordType.DECISION)]
    assert bundles[0] == bundles[1] != bundles[2]
    assert records(state, RecordType.DECISION)[2]["out"]["proposed"] == "slow"


def test_U3_a_slot_that_went_bad_is_a_security_record(tmp_path):
    """The previous bundle decides, and the journal says why."""
    state = make_device(tmp_path)
    install(state, bundle(2, revision=2))
    slot = state / "slots" / "slot1.aiot"
    data = bytearray(slot.read_bytes())
    data[len(data) // 2] ^= 1
    slot.write_bytes(data)
    with agent(state, packet(0)) as (one, source):
        run_out(one, source)
    assert any(r["kind"] == "slots" for r in records(state, RecordType.SECURITY))
    assert len(records(state, RecordType.DECISION)) == 1


def test_records_are_committed_in_groups_and_before_waiting(tmp_path):
    """Fewer syncs than decisions while packets come; nothing open when none does."""
    state = make_device(tmp_path, journal={"commit_ms": 200})
    with agent(state, *[packet(i) for i in range(30)]) as (one, source):
        source.acknowledges = False
        while source.waiting:
            one.step()
        assert one._keeper.commits < 15
        while one._keeper.wait_s() is not None:
            one.step()
        assert one._keeper.journal.durable_seq == one._keeper.journal.next_seq - 1


def test_J1_what_was_acknowledged_is_durable(tmp_path):
    """A sender that got its credit may rely on the decision: it is synced by then."""
    state = make_device(tmp_path, journal={"commit_ms": 60_000})
    with agent(state, packet(0), packet(1)) as (one, source):
        while source.waiting:
            one.step()
            assert one._keeper.journal.durable_seq == one._keeper.journal.next_seq - 1
        assert len(source.credits) == 2


def test_J6_a_credit_says_when_nothing_could_be_made_durable(tmp_path):
    """While the disk refuses, every credit is marked; once it does not, what waited is durable too."""
    state = make_device(tmp_path)
    disk = RefusingDisk(state)
    packets = [packet(i) for i in range(5)]
    with agent(state, *packets[:4], BadPacket("packet: its keys"), packets[4], disk=disk) as (one, source):
        steps(one)
        disk.refuses = errno.EFBIG
        steps(one, 4)
        assert source.not_durable == [*[p.at_us for p in packets[1:4]], None]
        disk.refuses = 0
        steps(one)
        assert source.credits[-1] == packets[4].at_us
        assert len(source.not_durable) == 4
    assert len(records(state, RecordType.DECISION)) == 5


def test_J6_a_record_lost_for_want_of_room_is_never_vouched_for(tmp_path):
    """A full journal that must not drop: no plain credit for a packet whose decision is nowhere."""
    state = make_device(tmp_path, journal={"quota_bytes": 1 << 16, "on_full": "stop"})
    packets = [packet(i) for i in range(60)]
    with agent(state, *packets) as (one, source):
        while source.waiting:
            one.step()
        vouched = set(source.credits) - set(source.not_durable)
    kept = {r["in"]["window_end_us"] for r in records(state, RecordType.DECISION)}
    assert source.not_durable
    assert vouched <= kept


class HealingDisk(RefusingDisk):
    """Refuses until another record was lost for want of room in memory, then takes everything."""

    keeper: Keeper | None = None
    lost = 0

    def _check(self) -> None:
        if self.keeper is not None and self.keeper.lost > self.lost:
            self.refuses = 0
        super()._check()


def test_J6_a_commit_that_succeeds_vouches_for_no_record_that_was_lost_before(tmp_path):
    """Lost in memory, then the disk recovers within the same turn: the credit is still marked."""
    state = make_device(tmp_path)
    disk = HealingDisk(state)
    with agent(state, packet(0), packet(1), disk=disk) as (one, source):
        keeper, disk.refuses = one._keeper, errno.ENOSPC
        for size in (1 << 20, 1 << 14, 1 << 8):
            while keeper.append(RecordType.RESULT, b" " * size) is not None:
                pass
        disk.keeper, disk.lost = keeper, keeper.lost
        steps(one)
        assert keeper.writable
        assert source.not_durable == [packet(0).at_us]
        steps(one)
        assert source.credits == [packet(0).at_us, packet(1).at_us]
        assert len(source.not_durable) == 1


def test_J9_no_timer_or_command_of_a_time_that_never_was_goes_on(tmp_path):
    """Set back: what is in force stays, its end is now, and changes that have not come are forgotten."""
    posture = Posture("slow", 9 * S, 99 * S)
    state = EngineState(
        history={"h": (1.0,)}, posture=posture, changes=(Change(2.0, "run"), Change(9.0, "slow"))
    )
    after = rewind(state, 5 * S)
    assert after == EngineState(posture=Posture("slow", 5 * S, 5 * S), changes=(Change(2.0, "run"),))
    latched = replace(state, posture=Posture("stop", 1 * S, None))
    assert rewind(latched, 5 * S).posture == Posture("stop", 1 * S, None)


def test_J6_the_plant_learns_what_no_agent_vouches_for(tmp_path):
    """Over a real pipe, of a real process whose files may not grow: handled, but not durable."""
    state = make_device(tmp_path, actuator=None, uplink=None)
    selector = selectors.DefaultSelector()
    link = Link(DEVICE, state, obey=lambda values: values)
    link.start_agent(selector)
    try:
        for i in range(4):
            if i == 2:
                assert link.agent is not None
                resource.prlimit(link.agent.pid, resource.RLIMIT_FSIZE, (1000, 1000))
            at_us = packet(i).at_us
            link.send(packet(i))
            wait_until(selector, lambda at_us=at_us: link.done_us == at_us, 20.0, "a credit")
            assert link.durable_us == packet(min(i, 1)).at_us
        assert link.credits == 4
    finally:
        link.stop()
        selector.close()


FAR_US = 40_000 * 86_400 * S


def moved(i: int, by_us: int) -> Packet:
    """The i-th packet, all of its instants elsewhere."""
    one = packet(i)
    return Packet(
        one.at_us + by_us,
        {name: replace(s, first_us=s.first_us + by_us) for name, s in one.samples.items()},
        tuple((name, at + by_us, value) for name, at, value in one.points),
        tuple((name, at + by_us, value) for name, at, value in one.context),
    )


def ends(state: Path) -> list[int]:
    return [r["in"]["window_end_us"] for r in records(state, RecordType.DECISION)]


def test_G2_one_packet_from_the_far_future_silences_nothing(tmp_path):
    """It is refused, journaled and shown; the packets behind it are decided as ever, and after a restart."""
    state = make_device(tmp_path)
    with actuator_process(state):
        with agent(state, packet(0), moved(1, FAR_US), packet(1), packet(2)) as (one, source):
            run_out(one, source)
            assert source.credits[1] is None
            assert (health(state)["status"], health(state)["bad_packets"]) == ("yellow", 1)
        with agent(state, packet(3)) as (one, source):
            run_out(one, source)
    assert ends(state) == [packet(i).at_us for i in range(4)]
    (note,) = records(state, RecordType.SECURITY)
    assert "ahead of the last packet" in note["why"]


def test_G2_a_time_that_was_believed_wrongly_is_given_up(tmp_path):
    """First packet from the far future: three that agree set device and clock back, even after a restart."""
    state = make_device(tmp_path)
    with actuator_process(state):
        with agent(state, *[moved(i, FAR_US) for i in (0, 1)]) as (one, source):
            run_out(one, source)
        packets = [packet(0), packet(1), packet(2), *[packet(i, vib=WILD) for i in (3, 4)]]
        with agent(state, *packets) as (one, source):
            run_out(one, source)
            assert one._parts.clock.now_us() == packet(4).at_us
            assert (health(state)["status"], health(state)["time_set"]) == ("yellow", 1)
        assert driven(state)[-1] == {"drive": {"speed": 0.6}}
    assert ends(state)[2:] == [packet(i).at_us for i in (2, 3, 4)]
    notes = [note["why"] for note in records(state, RecordType.SECURITY)]
    assert any("packets in a row agree" in why for why in notes)
    assert replayable(state)


def replayable(state: Path) -> bool:
    engine = Engine(Slots.open(RealDisk(state), *_trusted(state)).active().files)
    pairs = [(a, b) for a, b in itertools.pairwise(frames(state)) if b.type is RecordType.DECISION]
    return all(replay_record(engine, b.payload, a.payload).identical for a, b in pairs if b.payload)


def test_G2_with_a_clock_of_its_own_a_device_believes_no_packet_ahead_of_it(tmp_path):
    """Packets of another century are refused; those of now are decided."""
    state = make_device(tmp_path, clock="system")
    by_us = time.time_ns() // 1000 - packet(9).at_us
    with agent(state, packet(0), moved(1, by_us), packet(2), moved(2, by_us)) as (one, source):
        run_out(one, source)
        assert [credit is None for credit in source.credits] == [True, False, True, False]
    assert ends(state) == [packet(i).at_us + by_us for i in (1, 2)]


def test_G2_a_source_whose_time_stands_still_is_told(tmp_path):
    """The same packets again and again move nothing, and health says so."""
    state = make_device(tmp_path)
    again = [packet(i % 3) for i in range(STANDING)]
    with actuator_process(state), agent(state, packet(3), *again) as (one, source):
        run_out(one, source)
        assert health(state)["status"] == "yellow"
        assert "nothing is due" in health(state)["source_error"]
    assert ends(state) == [packet(3).at_us]
    assert len(records(state, RecordType.SECURITY)) == 1


def test_G1_words_that_utf8_cannot_carry_stop_nothing(tmp_path):
    """In a context word or in the words of a refusal: the agent decides, journals and tells its health."""
    state = make_device(tmp_path)
    at_us = packet(0).at_us
    odd = packet(0, context=(("mode", at_us, float("nan")), ("load", at_us, 80.0)))
    with agent(state, odd, BadPacket("packet.samples.\ud800"), packet(1)) as (one, source):
        (state / "operator" / "inbox").joinpath(os.fsdecode(b"\xff\xfe.json")).write_bytes(b"{}")
        run_out(one, source)
        assert one.counts.decided == 2
        assert "ud800" in health(state)["last_error"]
    assert any("udcff" in note.get("file", "") for note in records(state, RecordType.SECURITY))


def test_T8_a_message_is_not_obeyed_again_though_done_is_gone(tmp_path):
    """The journal remembers what was obeyed, when somebody empties the folder of handled messages."""
    state = make_device(tmp_path)
    with agent(state, packet(0), packet(1)) as (one, source):
        steps(one)
        name = say(state, "override", packet(0).at_us, action="slow")
        message = (state / "operator" / "inbox" / f"{name}.json").read_bytes()
        time.sleep(0.06)
        run_out(one, source)
    shutil.rmtree(state / "operator" / "done")
    (state / "operator" / "inbox" / "again.json").write_bytes(message)
    with agent(state, packet(2)) as (one, source):
        run_out(one, source)
    assert len(records(state, RecordType.OVERRIDE)) == 1
    overridden = [r for r in records(state, RecordType.DECISION) if r["in"]["operator"]["override"]]
    assert len(overridden) == 1
    assert any("seen before" in note["why"] for note in records(state, RecordType.SECURITY))


def test_G7_a_message_journaled_but_not_obeyed_is_obeyed_after_the_power_comes_back(tmp_path):
    """Between paper and deed the power goes: the message in the inbox still counts, once."""
    state = make_device(tmp_path)
    with agent(state, packet(0)) as (one, source):
        run_out(one, source)
        name = say(state, "override", packet(0).at_us, action="slow")
        (received,) = one._people._desk.poll(packet(0).at_us)
        said = {"at_us": packet(0).at_us, **received.to_json()}
        one._keeper.append(RecordType.OVERRIDE, said)
        assert one._keeper.commit()
    with agent(state, packet(1)) as (one, source):
        run_out(one, source)
    overridden = [r for r in records(state, RecordType.DECISION) if r["in"]["operator"]["override"]]
    assert len(overridden) == 1
    assert any(name in path.name for path in (state / "operator" / "done").iterdir())


def test_a_span_beyond_all_time_stops_nothing(tmp_path):
    """A horizon of 1e303 s asks people to look until the last instant there is."""
    state = make_device(tmp_path)
    with agent(state, packet(0)) as (one, _):
        decision = one._decision
        longest = decision.outcome.model_copy(update={"horizon_s": 1e303})
        one._people.ask_for_check(
            "pump-1/x/1", packet(0).at_us, decision.model_copy(update={"outcome": longest})
        )
    (asked,) = asked_of(state, "inspect")
    assert asked["until_us"] == MAX_US


def test_a_journal_of_another_device_is_refused(tmp_path):
    """A copied state folder does not speak for two devices."""
    state = make_device(tmp_path)
    with agent(state):
        pass
    config = json.loads((state / "device.json").read_text())
    (state / "device.json").write_text(json.dumps(config | {"device": "pump-2"}))
    with pytest.raises(JournalError, match="pump-2"), agent(state):
        pass


def test_files_and_lists_decide_alike(tmp_path):
    """The same packets from a file give the same decisions, apart from who decided and when."""
    packets = [packet(i, vib=WILD if i % 3 == 0 else 1.0) for i in range(6)]
    outs = []
    for name in ("a", "b"):
        state = make_device(tmp_path / name, source="file:packets")
        write_packets(state / "packets", packets)
        with actuator_process(state):
            if name == "a":
                with agent(state, *packets) as (one, source):
                    run_out(one, source)
            else:
                with open_agent(state, read_config(state)) as one:
                    one.run(lambda: False, drain_s=0)
        outs.append([(r["out"]["features"], r["out"]["final"]) for r in records(state, RecordType.DECISION)])
    assert outs[0] == outs[1]
    assert len(outs[0]) == 6
