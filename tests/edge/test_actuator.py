from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds.bundles import signing_key, trust_and_keys
from worlds.device import ACTUATOR, DEVICE, actuator_process, driven

from aiotkit.core.errors import ActuatorError, ConfigError
from aiotkit.core.records import Command
from aiotkit.edge.control import Control
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.envelope import command_refusal, parse_actuator_config, refusal
from aiotkit.edge.latches import STOP_FILE, read_held, write_stop
from aiotkit.edge.link import ActuatorLink
from aiotkit.edge.messages import make_message, sign_message

S = 1_000_000
SLOW: dict[str, Any] = {"speed": 0.5}


def config(**changes: Any) -> Any:
    return parse_actuator_config(json.dumps(ACTUATOR | changes).encode())


def command(action: str = "slow", values: Any = None, until_us: int | None = None) -> dict[str, Any]:
    return {
        "action": action,
        "actuator": "drive",
        "values": SLOW if values is None else values,
        "valid_until_us": until_us,
        "irreversible": False,
    }


def order(action: str, speed: float, until_us: int | None = None, *, irreversible: bool = False) -> Command:
    return Command(action, "drive", {"speed": speed}, until_us, irreversible)


def soon(seconds: float) -> int:
    return time.time_ns() // 1000 + round(seconds * S)


# -- envelope and control: pure


BAD = {
    "too fast": ("drive", {"speed": 1.01}, r"outside \[0, 1\]"),
    "nan": ("drive", {"speed": float("nan")}, "no finite number"),
    "a word": ("drive", {"speed": "12"}, "no finite number"),
    "true": ("drive", {"speed": True}, "no finite number"),
    "null": ("drive", {"speed": None}, "no finite number"),
    "unknown value": ("drive", {"sped": 1}, "did you mean 'speed'"),
    "unknown actuator": ("drve", {"speed": 1}, "did you mean 'drive'"),
    "no object": ("drive", [1], "must be an object"),
    "no name": (None, {}, "unknown actuator"),
}
HUGE = 10**400  # no float holds it


@pytest.mark.parametrize(("actuator", "values", "words"), BAD.values(), ids=BAD.keys())
def test_G1_a_command_outside_the_envelope_is_refused_in_words(actuator, values, words):
    """Whatever is not declared and finite and within its limits never reaches a driver."""
    assert re.search(words, refusal(config().actuators, actuator, values))


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x), max_leaves=4))
def test_G1_only_numbers_within_the_limits_pass(value):
    """For any value: it passes exactly when it is a number in [0, 1] and no truth value."""
    allowed = isinstance(value, float) and 0 <= value <= 1
    assert (refusal(config().actuators, "drive", {"speed": value}) == "") is allowed


def test_an_ended_command_is_expired_not_obeyed():
    """valid_until_us at or before now: expired; without a known time: refused."""
    assert command_refusal(config(), command(until_us=5), 5)[0] == "expired"
    assert command_refusal(config(), command(until_us=6), 5) == ("", "")
    assert command_refusal(config(), command(), None)[0] == "refused"


@pytest.mark.parametrize("until_us", [HUGE, -HUGE, True, 1.5, "soon"])
def test_G1_an_end_that_is_no_instant_is_refused(until_us):
    """A validity that no clock will ever show is a fault, not a command for ever."""
    status, why = command_refusal(config(), command(until_us=until_us), 5)
    assert (status, "is no instant" in why) == ("refused", True)


WRONG = {
    "unknown key": ({"deadmn_s": 1}, "did you mean 'deadman_s'"),
    "incomplete rest": ({"rest": {}}, "rest.drive.speed: missing"),
    "unsafe safe": ({"safe": {"drive": {"speed": 2}}}, r"safe: drive.speed: 2 outside \[0, 1\]"),
    "no limit": ({"actuators": {"drive": {"speed": {"min": 0}}}}, "either min and max, or choices"),
    "driver": ({"driver": "usb"}, "driver"),
}


@pytest.mark.parametrize(("changes", "words"), WRONG.values(), ids=WRONG.keys())
def test_a_bad_actuator_file_says_what_is_wrong(changes, words):
    """Every problem of actuator.json is named with its place and a hint."""
    with pytest.raises(ConfigError, match=words):
        config(**changes)


def test_commands_end_by_themselves():
    """At its end a command gives way to rest, and the event says so."""
    control = Control(config())
    assert control.command("a", command(until_us=100 * S), 90 * S, 1000) == ("", "")
    assert control.targets() == {"drive": {"speed": 0.5}}
    control.pass_time(99 * S, 1000 + 9 * S)
    assert control.targets() == {"drive": {"speed": 0.5}}
    control.pass_time(100 * S, 1000 + 10 * S)
    assert control.targets() == {"drive": {"speed": 1.0}}
    assert [(e.kind, e.id) for e in control.events] == [("expired", "a")]


def test_J9_setting_the_clock_back_does_not_prolong_a_command():
    """Validity is counted on the clock that only grows."""
    control = Control(config())
    control.command("a", command(until_us=100 * S), 90 * S, 0)
    control.pass_time(1 * S, 10 * S)  # the wall clock was set back, ten seconds have passed
    assert control.targets() == {"drive": {"speed": 1.0}}


def test_G6_the_deadman_ends_timed_commands_and_leaves_trips():
    """Nobody there for deadman_s: timed commands end; one that a person must reset stays."""
    control = Control(config(deadman_s=5))
    control.beat(0)
    control.command("a", command(until_us=100 * S), 0, 0)
    control.pass_time(5 * S, 5 * S)
    assert control.in_force
    control.pass_time(5 * S + 1, 5 * S + 1)
    assert not control.in_force
    assert [e.kind for e in control.events] == ["deadman", "expired"]
    control.beat(6 * S)
    control.command("b", command("stop", {"speed": 0}), 6 * S, 6 * S)
    control.pass_time(60 * S, 60 * S)
    assert control.targets() == {"drive": {"speed": 0}}


@given(st.lists(st.sampled_from(["beat", "timed", "held", "stop", "release", "rest", "wait"]), max_size=30))
def test_G7_while_stopped_the_targets_are_the_safe_ones(steps):
    """After any history, between stop and release nothing but the safe values is asked for."""
    control, now = Control(config(deadman_s=5)), 0
    stopped = False
    for step in steps:
        now += 3 * S
        if step == "beat":
            control.beat(now)
        elif step in ("timed", "held"):
            said = control.command(step, command(until_us=now + S if step == "timed" else None), now, now)
            assert (said[0] == "refused") is stopped
        elif step in ("stop", "release"):
            getattr(control, step)(now, "test")
            stopped = step == "stop"
        elif step == "rest":
            control.rest()
        control.pass_time(now, now)
        if stopped:
            assert control.targets() == {"drive": {"speed": 0.0}}
        assert control.due_in_us(now) >= 0


# -- the process


@pytest.fixture
def state(tmp_path: Path) -> Path:
    (tmp_path / "trust.json").write_bytes(trust_and_keys()[0].canonical())
    (tmp_path / "actuator.json").write_text(json.dumps(ACTUATOR))
    return tmp_path


@pytest.fixture
def link_to() -> Iterator[Callable[[Path], ActuatorLink]]:
    links: list[ActuatorLink] = []

    def connect(state: Path) -> ActuatorLink:
        links.append(ActuatorLink(state / "actuator.sock"))
        return links[-1]

    yield connect
    for link in links:
        link.close()


def wait_for(reached: Any, timeout_s: float = 5.0) -> None:
    until = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_command_reaches_the_driver_and_ends_in_time(state, link_to):
    """Set while valid, at rest afterwards, without anybody asking."""
    with actuator_process(state):
        result = link_to(state).command("a", order("slow", 0.5, soon(0.2)))
        assert (result.status, result.in_force) == ("sent", True)
        wait_for(lambda: len(driven(state)) == 3)
    assert driven(state) == [{"drive": {"speed": v}} for v in (1.0, 0.5, 1.0)]


def test_refusals_come_back_in_words(state, link_to):
    """Outside the envelope and expired are two answers, and neither moves anything."""
    with actuator_process(state):
        link = link_to(state)
        assert link.command("a", order("slow", 7.0)).status == "refused"
        late = link.command("b", order("slow", 0.5, soon(-1)))
        assert (late.status, late.in_force) == ("expired", False)
    assert driven(state) == [{"drive": {"speed": 1.0}}]


def test_G6_without_heartbeats_the_rest_values_return(state, link_to):
    """An agent that is gone loses the actuator within deadman_s; its successor hears of it."""
    (state / "actuator.json").write_text(json.dumps(ACTUATOR | {"deadman_s": 0.2}))
    with actuator_process(state):
        link = link_to(state)
        link.command("a", order("slow", 0.5, soon(60)))
        wait_for(lambda: driven(state)[-1] == {"drive": {"speed": 1.0}})
        report = link.beat()
    assert [e["kind"] for e in report.events] == ["deadman", "expired"]
    assert not report.in_force


def test_G7_the_stop_acts_within_100_ms_and_survives_a_restart(state, link_to):
    """Safe values at once; after a restart still safe; commands are refused until it is released."""
    with actuator_process(state):
        link = link_to(state)
        link.command("a", order("slow", 0.5, soon(60)))
        started = time.monotonic()
        assert link.stop("anna", "smoke")["durable"]
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        assert time.monotonic() - started < 0.1
    with actuator_process(state):
        link = link_to(state)
        wait_for(lambda: len(driven(state)) == 4)
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        refused = link.command("b", order("slow", 0.5, soon(60)))
        assert (refused.status, "stop was pressed" in refused.why) == ("refused", True)
        assert link.beat().stopped


def release(device: str = DEVICE, key: Any = None, *, at_us: int | None = None, **said: Any) -> bytes:
    at = soon(0) if at_us is None else at_us
    message = make_message(device, "stop", "anna", at, **{"release": True, **said})
    return sign_message(message, key or trust_and_keys()[2])


def test_G7_only_an_operators_key_releases_the_stop(state, link_to):
    """Another key, another device, an old release or no release: the stop holds; the right one lifts it."""
    with actuator_process(state):
        link = link_to(state)
        old = release()
        link.stop("anna", "")
        for envelope, words in (
            (release(key=signing_key("somebody")), "found 0"),
            (release("pump-2"), "pump-2"),
            (release(release=None), "with release"),
            (release(at_us=soon(-7200)), "ended"),
            (old, "before the stop was pressed"),
            (b"{}", "missing"),
        ):
            with pytest.raises(ActuatorError, match=words):
                link.release(envelope)
            assert link.beat().stopped
        assert link.release(release())["stopped"] is False
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}
    assert not (state / STOP_FILE).exists()
    with actuator_process(state):
        assert not link_to(state).beat().stopped


def test_G7_a_latch_that_cannot_be_read_stops(state, link_to):
    """Whatever lies where the stop is latched stops."""
    (state / STOP_FILE).write_bytes(b"\0\0")
    with actuator_process(state):
        assert link_to(state).beat().stopped


def test_G7_a_stop_pressed_while_the_process_is_dead_holds_at_its_start(state):
    """The latch file alone is enough."""
    write_stop(RealDisk(state), "anna", "", soon(0))
    with actuator_process(state):
        wait_for(lambda: driven(state) == [{"drive": {"speed": 0.0}}])


@pytest.mark.parametrize("text", [b'{"at_us":1e999}', b"5", b"[" * 50_000, b'{"at_us":-1}', b"", None])
def test_G7_whatever_lies_in_the_latchs_place_stops(state, link_to, text):
    """Numbers beyond any clock, other JSON, no JSON, even a folder: stopped, and a key still lifts it."""
    (state / STOP_FILE).mkdir() if text is None else (state / STOP_FILE).write_bytes(text)
    with actuator_process(state):
        link = link_to(state)
        assert link.beat().stopped
        wait_for(lambda: driven(state) == [{"drive": {"speed": 0.0}}])
        assert link.release(release())["stopped"] is False
    assert not (state / STOP_FILE).exists()


NOT_HONOURED = {
    "outside": ({"drive": {"id": "t", "action": "stop", "values": {"speed": 9.0}}}, r"9 outside \[0, 1\]"),
    "unknown value": ({"drive": {"id": "t", "action": "stop", "values": {"zzz": 1}}}, "unknown value 'zzz'"),
    "values 5": ({"drive": {"id": "t", "action": "stop", "values": 5}}, "must be an object"),
    "no values": ({"drive": {"id": "t", "action": "stop"}}, "must be an object"),
    "no command": ({"drive": [1]}, "is no command"),
    "a list": ([], "cannot be read"),
}


@pytest.mark.parametrize(("held", "words"), NOT_HONOURED.values(), ids=NOT_HONOURED.keys())
def test_G1_a_held_command_outside_the_envelope_gives_way_to_safe(state, link_to, held, words):
    """What was held is checked like any command; refused, safe values hold until a person ends them."""
    (state / "held.json").write_text(json.dumps({"format": 1, "held": held}))
    with actuator_process(state):
        link = link_to(state)
        report = link.beat()
        assert [(e["kind"], e["actuator"]) for e in report.events] == [("refused", "drive")]
        assert re.search(words, report.events[0]["why"])
        assert report.in_force["drive"]["action"] == "safe"
        wait_for(lambda: driven(state) == [{"drive": {"speed": 0.0}}])
        assert link.rest("r").in_force
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}


@pytest.mark.parametrize("text", [b"\xff", b"[" * 50_000, b'{"format":2,"held":{}}', None])
def test_G1_held_commands_that_cannot_be_read_are_not_undone(state, link_to, text):
    """There may have been a trip: every actuator goes to its safe values, and the event says why."""
    (state / "held.json").mkdir() if text is None else (state / "held.json").write_bytes(text)
    with actuator_process(state):
        assert [e["kind"] for e in link_to(state).beat().events] == ["refused"]
        wait_for(lambda: driven(state) == [{"drive": {"speed": 0.0}}])


def test_G1_a_tightened_envelope_holds_for_what_was_held(state, link_to):
    """A trip that was allowed when it was taken is refused once the envelope no longer allows it."""
    with actuator_process(state):
        assert link_to(state).command("t", order("fast", 0.9)).in_force
    narrow = {"drive": {"speed": {"min": 0, "max": 0.5}}}
    said = {"actuators": narrow, "rest": {"drive": {"speed": 0.5}}}
    (state / "actuator.json").write_text(json.dumps(ACTUATOR | said))
    with actuator_process(state):
        (event,) = link_to(state).beat().events
        assert (event["kind"], event["id"], event["action"]) == ("refused", "t", "fast")
        wait_for(lambda: driven(state)[-1] == {"drive": {"speed": 0.0}})
    assert driven(state)[-1] == {"drive": {"speed": 0.0}}


def test_a_held_command_for_an_actuator_that_is_gone_is_told(state, link_to):
    """Nothing can be driven for it; the event says that it was dropped."""
    held = {"valve": {"id": "t", "action": "shut", "values": {"open": 0}}}
    (state / "held.json").write_text(json.dumps({"format": 1, "held": held}))
    with actuator_process(state):
        report = link_to(state).beat()
        assert [(e["kind"], e["actuator"]) for e in report.events] == [("refused", "valve")]
        assert not report.in_force


def test_a_release_without_a_trust_file_is_refused_and_the_stop_holds(state, link_to):
    """The answer names the file that is missing; the process serves on."""
    (state / "trust.json").unlink()
    with actuator_process(state):
        link = link_to(state)
        link.stop("anna", "")
        with pytest.raises(ActuatorError, match=r"release: trust.json; found No such file"):
            link.release(release())
        assert link.beat().stopped


def asked(state: Path, line: bytes) -> Any:
    with socket.socket(socket.AF_UNIX) as end:
        end.settimeout(5)
        end.connect(str(state / "actuator.sock"))
        end.sendall(line + b"\n")
        with end.makefile("rb") as lines:
            return json.loads(lines.readline())


def test_text_that_is_no_unicode_breaks_no_answer(state, link_to):
    """Half a surrogate pair in an action, or in who pressed the stop: every later answer still comes."""
    wrong = json.dumps({"id": "x", "command": command(action="\ud800")}).encode()
    with actuator_process(state):
        assert asked(state, wrong)["status"] == "sent"
        raw = wrong.replace(b"\\ud800", "\ud800".encode(errors="surrogatepass"))
        assert asked(state, raw)["status"] == "sent"
        assert link_to(state).beat().in_force["drive"]["id"] == "x"
        assert asked(state, b'{"stop":{"by":"\\ud800","why":"\\udfff"}}')["durable"] is True
        assert [e["why"] for e in link_to(state).beat().events] == ["?: ?"]
        assert link_to(state).stop("\udcff", "\udcff")["durable"] is True


def test_commands_with_impossible_numbers_leave_the_process_alive(state, link_to):
    """Ends and values that no float holds are refused, and the next command is served."""
    with actuator_process(state):
        for wrong in ({"until_us": HUGE}, {"until_us": -HUGE}, {"values": {"speed": HUGE}}):
            line = json.dumps({"id": "x", "command": command(**wrong)}).encode()
            assert asked(state, line)["status"] == "refused"
        assert link_to(state).command("a", order("slow", 0.5, soon(9))).in_force


def test_a_file_that_cannot_be_written_is_no_connection(state, link_to):
    """The report says lost and commands fail; once the file can be written, rest is set and it is there."""
    (state / "driven.jsonl").mkdir()
    with actuator_process(state):
        link = link_to(state)
        assert link.beat().driver == "lost"
        assert link.command("a", order("slow", 0.5, soon(60))).status == "failed"
        assert link.beat().driver == "lost"
        (state / "driven.jsonl").rmdir()
        wait_for(lambda: link.beat().driver == "connected")
        wait_for(lambda: driven(state) == [{"drive": {"speed": 1.0}}])


def test_a_trip_survives_a_restart_and_a_person_ends_it(state, link_to):
    """A command without an end is in force after a restart, until 'rest' comes from a person."""
    with actuator_process(state):
        link_to(state).command("t", order("stop", 0.0, irreversible=True))
    assert read_held(RealDisk(state), config().actuators)[0]["drive"].action == "stop"
    with actuator_process(state):
        link = link_to(state)
        assert link.beat().in_force["drive"]["action"] == "stop"
        wait_for(lambda: len(driven(state)) == 3)
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        assert link.rest("r").in_force
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}
    assert read_held(RealDisk(state), config().actuators) == ({}, [])


def hung_up_on(end: socket.socket, data: bytes) -> bool:
    try:
        end.sendall(data)
        return end.recv(10) == b""
    except ConnectionError:
        return True


def test_requests_that_are_none_are_answered_and_forgotten(state, link_to):
    """Garbage on the socket gets an error line, and the next client is served as ever."""
    with actuator_process(state):
        for line in (b"{", b"[]", b'{"x":1}', b'{"command":3}', b"[" * 5000):
            with socket.socket(socket.AF_UNIX) as end:
                end.connect(str(state / "actuator.sock"))
                end.sendall(line + b"\n")
                assert b"error" in end.recv(4096)
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(state / "actuator.sock"))
            assert hung_up_on(end, b"x" * 200_000)
        assert link_to(state).command("a", order("slow", 0.5, soon(9))).in_force


def test_a_folder_of_any_depth_can_hold_the_socket(tmp_path, link_to):
    """Socket addresses are short on every system; state folders need not be."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    (deep / "actuator.json").write_text(json.dumps(ACTUATOR))
    with actuator_process(deep):
        assert link_to(deep).beat().deadman_s == 60


# -- a plant at the other end


class Plant:
    """A plant on a socket that obeys, or not."""

    def __init__(self, path: Path, *, answers: bool = True, clips_at: float = 1.0) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.seen: list[Any] = []
        self.ticks: list[int] = []
        self.answers, self.clips_at = answers, clips_at
        self.end: socket.socket | None = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        self.end = self.listener.accept()[0]
        with self.end.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                self.seen.append(message)
                if "tick" in message:
                    self.ticks.append(message["tick"])
                elif self.answers:
                    speed = min(message["set"]["drive"]["speed"], self.clips_at)
                    self.end.sendall(json.dumps({"read": {"drive": {"speed": speed}}}).encode() + b"\n")

    def tick(self, now_us: int) -> None:
        assert self.end is not None
        self.end.sendall(b'{"now_us":%d}\n' % now_us)
        wait_for(lambda: now_us in self.ticks)

    def close(self) -> None:
        if self.end is not None:
            self.end.shutdown(socket.SHUT_RDWR)
            self.end.close()
        self.thread.join(5)
        self.listener.close()


@contextmanager
def plant(state: Path, clock: str = "system", **how: Any) -> Iterator[Plant]:
    said = {"driver": "socket:plant.sock", "clock": clock}
    (state / "actuator.json").write_text(json.dumps(ACTUATOR | said))
    one = Plant(state / "plant.sock", **how)
    try:
        with actuator_process(state):
            wait_for(lambda: one.seen)
            yield one
    finally:
        one.close()


def test_what_the_plant_reads_comes_back(state, link_to):
    """Equal values are 'read_back'; others are 'acknowledged' with the difference in words."""
    with plant(state, clips_at=0.4):
        link = link_to(state)
        assert link.command("a", order("slow", 0.3, soon(9))).status == "read_back"
        clipped = link.command("b", order("slow", 0.6, soon(9)))
        assert (clipped.status, clipped.why) == ("acknowledged", "drive.speed reads 0.4 instead of 0.6")


NONSENSE = [b"5", b"[1]", b"[" * 50_000, b"\xff\xfe", b'{"now_us":' + b"9" * 400 + b"}", b'{"read":[1]}']


@pytest.mark.parametrize("clock", ["system", "driver"])
def test_a_plant_that_talks_nonsense_is_still_commanded(state, link_to, clock):
    """Lines that say nothing are dropped; the connection, the time and the commands stay."""
    with plant(state, clock=clock) as machine:
        assert machine.end is not None
        for line in NONSENSE:
            machine.end.sendall(line + b"\n")
        machine.tick(10 * S)
        link = link_to(state)
        end = 50 * S if clock == "driver" else soon(60)
        assert link.command("a", order("slow", 0.3, end)).status == "read_back"
        assert link.beat().driver == "connected"


def test_a_reading_that_is_no_number_is_told(state, link_to):
    """A plant that reads infinity, or text that is no Unicode, is quoted in words."""
    with plant(state, answers=False) as machine:
        assert machine.end is not None
        machine.end.sendall(b'{"read":{"drive":{"speed":1.0}}}\n')
        result: list[Any] = []
        link = link_to(state)
        waiting = threading.Thread(
            target=lambda: result.append(link.command("a", order("slow", 0.3, soon(9))))
        )
        waiting.start()
        wait_for(lambda: len(machine.seen) == 2)
        machine.end.sendall(b'{"read":{"drive":{"speed":1e999,"note":"\\ud800","deep":[1]}}}\n')
        waiting.join(5)
        assert (result[0].status, result[0].why) == ("acknowledged", "drive.speed reads inf instead of 0.3")
        assert result[0].read == {"drive": {"speed": "inf", "note": "?"}}


def test_a_plant_that_does_not_answer_delays_no_stop(state, link_to):
    """A command waits for its reading; a stop from another client is served meanwhile."""
    with plant(state, answers=False) as machine:
        result: list[Any] = []
        waiting = threading.Thread(
            target=lambda: result.append(link_to(state).command("a", order("slow", 0.3, soon(9))))
        )
        waiting.start()
        wait_for(lambda: len(machine.seen) == 2)
        started = time.monotonic()
        link_to(state).stop("anna", "")
        assert time.monotonic() - started < 0.1
        wait_for(lambda: machine.seen[-1] == {"set": {"drive": {"speed": 0.0}}})
        waiting.join(5)
        assert result[0].status == "sent"


def test_a_plant_that_hangs_up_fails_the_command(state, link_to):
    """Without a driver commands fail, and are not in force when it comes back."""
    with plant(state) as machine:
        link = link_to(state)
        link.command("a", order("slow", 0.3, soon(60)))
        assert machine.end is not None
        machine.end.shutdown(socket.SHUT_RDWR)
        wait_for(lambda: link.beat().driver == "lost")
        failed = link.command("b", order("slow", 0.2, soon(60)))
        assert (failed.status, failed.in_force) == ("failed", False)
        assert not link.beat().in_force


def test_the_plants_ticks_are_the_time(state, link_to):
    """Nothing is obeyed before the first tick; a command ends before the tick that ends it is answered."""
    with plant(state, clock="driver") as machine:
        link = link_to(state)
        assert "what time it is" in link.command("a", order("slow", 0.3, 50 * S)).why
        machine.tick(10 * S)
        assert link.command("a", order("slow", 0.3, 50 * S)).status == "read_back"
        machine.tick(49 * S)
        assert machine.seen[-2] == {"set": {"drive": {"speed": 0.3}}}
        machine.tick(50 * S)
        assert machine.seen[-2:] == [{"set": {"drive": {"speed": 1.0}}}, {"tick": 50 * S}]
        link.beat()
        link.command("b", order("slow", 0.3, 500 * S))
        machine.tick(111 * S)  # more than deadman_s by the plant's clock
        assert machine.seen[-2:] == [{"set": {"drive": {"speed": 1.0}}}, {"tick": 111 * S}]


def test_nobody_there_is_a_failed_command(tmp_path, link_to):
    """A dead actuator process is a result, not an exception; a heartbeat says it."""
    link = link_to(tmp_path)
    result = link.command("a", order("slow", 0.3))
    assert (result.status, "cannot be reached" in result.why) == ("failed", True)
    with pytest.raises(ActuatorError, match="cannot be reached"):
        link.beat()
