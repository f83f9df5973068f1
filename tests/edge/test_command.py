from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from worlds.bundles import signed_archive, signing_key, trust_and_keys
from worlds.device import (
    DEVICE,
    ListSource,
    bundle,
    driven,
    edge,
    install,
    make_device,
    packet,
    say,
    write_packets,
)

from aiotkit.core.records import RecordType
from aiotkit.edge.build import open_agent, open_slots, read_trust
from aiotkit.edge.command import main
from aiotkit.edge.config import read_config
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal
from aiotkit.edge.latches import STOP_FILE
from aiotkit.edge.operator import INBOX, OperatorDesk
from aiotkit.edge.sources import encode_packet


def wait_for(reached: Any, timeout_s: float = 20.0) -> None:
    until = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def running(state: Path, command: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended by its own id if the test does not."""
    process = edge(command, "--state", state, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        for end in (process.stdin, process.stdout, process.stderr):
            if end is not None:
                end.close()


def decided(state: Path) -> list[dict[str, Any]]:
    with Journal.open(RealDisk(state), DEVICE) as journal:
        found = [f.payload for f in journal.frames() if f.type is RecordType.DECISION]
    return [json.loads(payload) for payload in found if payload is not None]


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out)


def test_J1_the_golden_path_survives_kills(tmp_path):
    """Agent and actuator as processes: killed twice in mid-stream, nothing is lost or decided twice."""
    state = make_device(tmp_path)
    packets = [packet(i, vib=9.0 if i % 5 == 0 else 1.0) for i in range(60)]
    with running(state, "actuator"):
        wait_for((state / "actuator.sock").exists)
        for until in (20, 40, 60):
            with running(state, "run", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
                assert agent.stdin is not None
                assert agent.stdout is not None
                for one in packets[:until]:  # what was durable is not decided again
                    agent.stdin.write(encode_packet(one))
                    agent.stdin.flush()
                    assert json.loads(agent.stdout.readline()) == {"done": one.at_us}
                if until < 60:
                    agent.kill()
                else:
                    agent.stdin.close()
                    assert agent.wait(20) == 0
    records = decided(state)
    assert [r["in"]["window_end_us"] for r in records] == [p.at_us for p in packets]
    for before, after in itertools.pairwise(records):
        assert after["in"]["state"]["history"] == before["out"]["state"]["history"]
    batches = sorted((tmp_path / "uplink" / DEVICE).glob("batch-*.ajb"))
    assert int(batches[-1].stem.split("-")[-1]) >= len(records) * 2
    assert {"drive": {"speed": 0.6}} in driven(state)


def test_SIGTERM_commits_and_leaves_with_0(tmp_path):
    """Told to stop while it waits for packets, the agent makes everything durable and goes."""
    state = make_device(tmp_path, journal={"commit_ms": 60_000})
    with running(state, "run", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        agent.stdin.write(encode_packet(packet(0)))
        agent.stdin.flush()
        agent.stdout.readline()
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
    assert len(decided(state)) == 1


def test_a_source_that_talks_nonsense_ends_the_run_with_3(tmp_path):
    """The exit code tells a supervisor that the place is wrong, and stderr says what to do."""
    state = make_device(tmp_path)
    with running(
        state, "run", stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    ) as agent:
        _, err = agent.communicate(encode_packet(packet(0))[:-10], timeout=30)
    assert agent.returncode == 3
    assert b"ends within a packet" in err


def test_install_status_and_rollback(tmp_path, capsys):
    """A bundle is installed, shown and rolled back; a refused one leaves all as it was, with code 1."""
    state = make_device(tmp_path)
    archive = tmp_path / "new.aiot"
    archive.write_bytes(bundle(2, revision=2))
    assert main(["install", str(archive), "--state", str(state), "--json"]) == 0
    assert said(capsys)["revision"] == 2
    assert main(["status", "--state", str(state), "--json"]) == 0
    shown = said(capsys)
    assert (shown["slots"]["active"]["revision"], shown["slots"]["floor"], shown["health"]) == (2, 2, None)
    archive.write_bytes(signed_archive(3, small=True, keys=[signing_key("nobody")]))
    assert main(["install", str(archive), "--state", str(state), "--json"]) == 1
    assert "role 'release'" in said(capsys)["error"]
    assert main(["rollback", "--state", str(state), "--json"]) == 0
    assert main(["status", "--state", str(state)]) == 0
    assert "bearing-test revision 1" in capsys.readouterr().out
    assert main(["install", str(tmp_path / "missing.aiot"), "--state", str(state)]) == 3


def test_status_without_a_bundle_is_1(tmp_path, capsys):
    """Nothing runs: the answer is no."""
    state = make_device(tmp_path)
    for path in (state / "slots").iterdir():
        path.unlink()
    assert main(["status", "--state", str(state)]) == 1
    assert "none" in capsys.readouterr().out


@pytest.fixture
def key(tmp_path) -> str:
    path = tmp_path / "anna.pem"
    trust_and_keys()[2].save(path)
    return str(path)


SPOKEN = {
    "answer": (["answer", "pump-1/abc/2", "stop"], {"question": "pump-1/abc/2", "action": "stop"}),
    "override": (["override", "run"], {"action": "run"}),
    "bypass": (["bypass", "off"], {"on": False}),
}


@pytest.mark.parametrize(("arguments", "expected"), SPOKEN.values(), ids=SPOKEN.keys())
def test_what_an_operator_types_arrives_signed(tmp_path, key, capsys, arguments, expected):
    """The command signs with the operator's key; the device believes it once and for itself only."""
    state = make_device(tmp_path, clock="system")
    extra = ["--state", str(state), "--key", key, "--operator", "anna", "--json"]
    assert main([*arguments, *extra]) == 0
    identity = said(capsys)["id"]
    desk = OperatorDesk(RealDisk(state), DEVICE, trust_and_keys()[0])
    (received,) = desk.poll(time.time_ns() // 1000)
    assert received.message is not None
    assert received.message.id == identity
    assert {name: getattr(received.message, name) for name in expected} == expected


def test_ask_lists_what_is_open(tmp_path, capsys):
    """Questions with their proposals, reasons and possible answers."""
    from aiotkit.core.records import Question

    state = make_device(tmp_path)
    assert main(["ask", "--state", str(state)]) == 0
    assert "no question" in capsys.readouterr().out
    desk = OperatorDesk(RealDisk(state), DEVICE, trust_and_keys()[0])
    desk.publish(Question("pump-1/abc/2", "confirm", "stop", 5, "strong vibration"), ["run", "stop"])
    assert main(["ask", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "pump-1/abc/2" in out
    assert "strong vibration" in out
    assert main(["ask", "--state", str(state), "--json"]) == 0
    assert said(capsys)["questions"][0]["actions"] == ["run", "stop"]


def test_G7_stop_without_an_agent_and_release_with_a_key(tmp_path, key, capsys):
    """The stop needs no agent; it survives a SIGKILL of the actuator process; release needs the key."""
    state = make_device(tmp_path, clock="system")
    stop = ["stop", "--state", str(state), "--operator", "anna", "--json"]
    with running(state, "actuator") as process:
        wait_for((state / "actuator.sock").exists)
        assert main(stop) == 0
        assert said(capsys)["durable"] is True
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        process.kill()
        process.wait()
    before = len(driven(state))
    with running(state, "actuator") as process:
        wait_for(lambda: len(driven(state)) > before)
        assert driven(state)[-1] == {"drive": {"speed": 0.0}}
        assert main([*stop, "--release"]) == 2
        assert "--key" in said(capsys)["error"]
        assert main([*stop, "--release", "--key", key]) == 0
        assert driven(state)[-1] == {"drive": {"speed": 1.0}}
        process.terminate()
        assert process.wait(10) == 0


def test_G6_an_agent_that_hangs_loses_the_actuator(tmp_path):
    """A frozen agent sends no heartbeats: the rest values return within deadman_s, and it learns of it."""
    state = make_device(tmp_path, clock="system", actuator={"deadman_s": 1.0})
    slow, rest = {"drive": {"speed": 0.6}}, {"drive": {"speed": 1.0}}
    with running(state, "actuator"):
        wait_for((state / "actuator.sock").exists)
        with running(state, "run", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
            say(state, "override", time.time_ns() // 1000, action="slow")
            wait_for(lambda: driven(state)[-1] == slow)
            time.sleep(1.5)
            assert driven(state)[-1] == slow  # an idle agent keeps it
            agent.send_signal(signal.SIGSTOP)
            wait_for(lambda: driven(state)[-1] == rest, 5.0)
            agent.send_signal(signal.SIGCONT)
            wait_for(lambda: json.loads((state / "health.json").read_bytes())["in_force"] is None)
            agent.terminate()
            assert agent.wait(20) == 0
    with Journal.open(RealDisk(state), DEVICE) as journal:
        results = [json.loads(f.payload or b"{}") for f in journal.frames() if f.type is RecordType.RESULT]
    assert [r["status"] for r in results] == ["sent", "deadman", "expired"]


def test_G7_stop_with_everything_dead_is_latched(tmp_path, capsys):
    """Nobody answers: the stop is written down, and the exit code says that the machine must be looked at."""
    state = make_device(tmp_path)
    assert main(["stop", "--state", str(state), "--operator", "anna"]) == 3
    assert "holds from the actuator process's next start" in capsys.readouterr().out
    assert (state / STOP_FILE).exists()


BAD_HEALTH = [
    b"{}",
    b"[]",
    b"5",
    b"null",
    b'"x"',
    b"\xff",
    b"[" * 50_000,
    b'{"now_us":null}',
    b'{"now_us":"x"}',
    b'{"now_us":1e999}',
    b'{"now_us":' + b"9" * 400 + b"}",
]


@pytest.mark.parametrize("health", BAD_HEALTH, ids=lambda h: h[:24].decode(errors="replace"))
def test_G7_a_stop_is_latched_whatever_the_agent_left_behind(tmp_path, capsys, health):
    """A damaged health.json delays no stop, and neither status nor an operator's message fails on it."""
    state = make_device(tmp_path)  # clock: source, so that the time is looked up there
    trust_and_keys()[2].save(tmp_path / "anna.pem")
    (state / "health.json").write_bytes(health)
    assert main(["stop", "--state", str(state), "--operator", "anna\udcff"]) == 3
    latched = json.loads((state / STOP_FILE).read_bytes())
    assert latched["by"] == "anna?"
    assert abs(latched["at_us"] - time.time_ns() // 1000) < 60_000_000
    assert main(["status", "--state", str(state)]) == 0
    assert main(["status", "--state", str(state), "--json"]) == 0
    signed = ["--key", str(tmp_path / "anna.pem"), "--operator", "anna"]
    assert main(["bypass", "on", "--state", str(state), *signed]) == 0
    capsys.readouterr()


def test_status_says_that_the_health_file_cannot_be_read(tmp_path, capsys):
    """An unreadable health.json is not taken for an agent that never ran."""
    state = make_device(tmp_path)
    main(["status", "--state", str(state)])
    assert "the agent never ran" in capsys.readouterr().out
    (state / "health.json").write_bytes(b"5")
    main(["status", "--state", str(state)])
    assert "cannot be read" in capsys.readouterr().out


def test_ask_skips_what_is_no_question_and_names_it(tmp_path, capsys):
    """One damaged file in the outbox hides no question that waits."""
    state = make_device(tmp_path)
    outbox = state / "operator" / "outbox"
    outbox.mkdir(parents=True)
    good = {"id": "x", "kind": "ask", "proposed": None, "reason": "strong", "actions": ["run"]}
    (outbox / "good.json").write_text(json.dumps(good))
    bad = {"a.json": b"{}", "b.json": b"[]", "c.json": b"\xff", "d.json": b"[" * 50_000, "e.json": b"5"}
    for name, data in bad.items():
        (outbox / name).write_bytes(data)
    (outbox / "f.json").mkdir()
    assert main(["ask", "--state", str(state), "--json"]) == 0
    answer = said(capsys)
    assert answer["questions"] == [good]
    assert answer["unreadable"] == [f"operator/outbox/{name}" for name in (*bad, "f.json")]
    assert main(["ask", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "strong" in out
    assert "warning: operator/outbox/a.json cannot be read as a question" in out


def test_install_takes_files_and_says_what_else_it_found(tmp_path, capsys):
    """A pipe is not waited for; folders, pipes and other files are wrong input (2), a bad bundle a no (1)."""
    state = make_device(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "note").write_bytes(b"hello")
    (tmp_path / "cut.aiot").write_bytes(bundle(2)[:-1])
    for name, code, words in (
        ("pipe", 2, "expected a bundle's file (.aiot); found a pipe or device"),
        ("folder", 2, "found a folder"),
        ("note", 2, "note is no bundle; expected an archive that starts with manifest.json"),
        ("cut.aiot", 1, "bundle archive"),
    ):
        assert main(["install", str(tmp_path / name), "--state", str(state)]) == code
        assert words in capsys.readouterr().err


def test_install_refuses_a_second_release_with_a_used_counter(tmp_path, capsys):
    """The command says no (1) and what to do; what runs stays."""
    state = make_device(tmp_path)
    (tmp_path / "twin.aiot").write_bytes(bundle(1, revision=2))
    assert main(["install", str(tmp_path / "twin.aiot"), "--state", str(state), "--json"]) == 1
    assert "counter 1 was already used by another release" in said(capsys)["error"]
    assert main(["status", "--state", str(state)]) == 0
    assert "bearing-test revision 1" in capsys.readouterr().out


WRONG = {
    "no device.json": ("", "device.json", 2),
    "an unknown key": ('{"format":1,"divice":"x"}', "did you mean 'device'", 2),
    "a bad source": (
        '{"format":1,"device":"a","site":"s","hardware":"h","decision":"d","source":"usb"}',
        "source",
        2,
    ),
}


@pytest.mark.parametrize(("text", "words", "code"), WRONG.values(), ids=WRONG.keys())
def test_a_bad_configuration_says_what_is_wrong(tmp_path, capsys, text, words, code):
    """Code 2 and a message with the place and a hint."""
    if text:
        (tmp_path / "device.json").write_text(text)
    assert main(["run", "--state", str(tmp_path)]) == code
    assert words in capsys.readouterr().err


def test_a_file_of_packets_is_replayed_to_its_end(tmp_path):
    """source: file:… decides every packet, delivers, and leaves with 0."""
    state = make_device(tmp_path, source="file:packets")
    write_packets(state / "packets", [packet(i) for i in range(20)])
    started = time.monotonic()
    with running(state, "run", stdout=subprocess.PIPE) as agent:
        assert agent.wait(30) == 0
    assert time.monotonic() - started < 15
    assert len(decided(state)) == 20
    assert list((tmp_path / "uplink" / DEVICE).glob("batch-*.ajb"))


def test_the_inbox_is_where_the_agent_looks(tmp_path):
    """The command line and the agent mean the same folder."""
    state = make_device(tmp_path)
    identity = say(state, "override", 0, action="run")
    assert (state / INBOX / f"{identity}.json").exists()


def agent_line(capsys: pytest.CaptureFixture[str], state: Path) -> str:
    capsys.readouterr()
    main(["status", "--state", str(state)])
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("agent ")]
    return line


def test_status_says_whether_an_agent_runs(tmp_path, capsys):
    """Before, while and after one runs, and when it has gone silent; the lock is left alone."""
    state = make_device(tmp_path)
    assert "the agent never ran" in agent_line(capsys, state)
    with running(state, "run", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        wait_for((state / "health.json").exists)
        assert agent_line(capsys, state).endswith("runs")
        health = json.loads((state / "health.json").read_bytes())
        agent.send_signal(signal.SIGSTOP)
        (state / "health.json").write_text(json.dumps(health | {"wall_us": health["wall_us"] - 90_000_000}))
        assert "runs, and has said nothing for 9" in agent_line(capsys, state)
        agent.kill()
        agent.wait()
    assert "is not running; what follows is 9" in agent_line(capsys, state)
    assert main(["status", "--state", str(state), "--json"]) == 0
    shown = said(capsys)
    assert shown["agent"]["running"] is False
    assert shown["health"]["status"] == health["status"]


def test_status_shows_the_probation_and_what_was_refused(tmp_path, capsys):
    """How far a new bundle is, what was refused and why; readmit takes the digest that is shown."""
    state = make_device(tmp_path)
    install(state, bundle(2, revision=2))
    with open_agent(state, read_config(state), source=ListSource(packet(0), packet(1))) as agent:
        agent.step()
        agent.step()
    assert main(["status", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "on probation: 2 of 96 decisions, 0 undecided, 0 novel, 0 late; 0 starts without" in out
    config = read_config(state)
    slots = open_slots(RealDisk(state), read_trust(state, config), config)
    bad = slots.active().digest
    slots.give_up("20 of 20 decisions were late")
    slots.note_passed(slots.active().digest)
    assert main(["status", "--state", str(state)]) == 0
    out = capsys.readouterr().out
    assert "probation passed" in out
    assert f"refused   {bad}: 20 of 20 decisions were late" in out
    assert main(["readmit", "sha256:nothing", "--state", str(state)]) == 2
    assert f"found {bad}" in capsys.readouterr().err
    assert main(["readmit", bad, "--state", str(state)]) == 0
    capsys.readouterr()
    assert main(["status", "--state", str(state), "--json"]) == 0
    assert said(capsys)["probation"]["denied"] == []
    archive = tmp_path / "new.aiot"
    archive.write_bytes(bundle(2, revision=2))
    assert main(["install", str(archive), "--state", str(state)]) == 0
