"""``aiotkit-edge``: everything that is done on a device. Imports wait until a command needs them."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiotkit.core.errors import ActuatorError, AiotkitError, OperatorError, StorageError
from aiotkit.edge.wire import loads, unicode_only

if TYPE_CHECKING:
    from aiotkit.edge.config import DeviceConfig
    from aiotkit.edge.disk import Disk
    from aiotkit.edge.link import ActuatorLink
    from aiotkit.edge.slots import Slots

_QUESTION = frozenset({"id", "kind", "proposed", "reason", "actions"})
_EXAMPLES = """examples:
  aiotkit-edge actuator --state /var/lib/aiotkit        hold the drivers (a process of its own)
  aiotkit-edge run --state /var/lib/aiotkit             decide until the source ends
  aiotkit-edge install bearing-7.aiot --state DIR       verify, try and commit a signed bundle
  aiotkit-edge status --state DIR --json                what runs, and how it is
  aiotkit-edge readmit --state DIR sha256:…             try a bundle again that failed its probation here
  aiotkit-edge ask --state DIR                          the questions that are open
  aiotkit-edge answer ID stop --state DIR --key anna.key --operator anna
  aiotkit-edge override run --state DIR --key anna.key --operator anna
  aiotkit-edge bypass on --state DIR --key anna.key --operator anna
  aiotkit-edge stop --state DIR --operator anna         now, even when the agent is dead
  aiotkit-edge stop --release --state DIR --key anna.key --operator anna

exit codes: 0 done, 1 the answer is no, 2 the input is wrong, 3 disk, process or source is"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if arguments.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        return int(arguments.command(arguments))
    except AiotkitError as error:
        if arguments.json:
            print(unicode_only(json.dumps({"error": str(error)}, ensure_ascii=False)))
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="aiotkit-edge",
        description="Decide on a device: agent, actuator process, bundles, people.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--state", type=Path, required=True, metavar="DIR", help="the device's state folder")
        one.add_argument("--json", action="store_true", help="print JSON")
        one.add_argument("--verbose", action="store_true", help="log more")
        one.set_defaults(command=command)
        return one

    run = add("run", _run, "Decide until the source ends or the process is told to stop (SIGTERM).")
    run.add_argument("--drain-s", type=float, default=5.0, metavar="S", help="deliver so long at the end")
    add("actuator", _actuator, "Hold the drivers, the envelope, the deadman and the stop.")
    install = add("install", _install, "Verify a bundle, try its golden cases here, and make it what runs.")
    install.add_argument("bundle", type=Path, metavar="FILE", help="a signed bundle (.aiot)")
    add("rollback", _rollback, "Run the previous bundle again; the floor stays.")
    readmit = add("readmit", _readmit, "Let a bundle that failed its probation here be installed again.")
    readmit.add_argument("bundle", metavar="DIGEST", help="which, as 'status' lists it")
    add("status", _status, "What runs and how: probation, refused bundles, the agent and its health.")
    add("ask", _ask, "List the questions that wait for a person.")
    answer = _signed(add("answer", _answer, "Answer a question."))
    answer.add_argument("question", metavar="ID", help="the question's id, as 'ask' lists it")
    answer.add_argument("action", metavar="ACTION", help="what shall be done")
    override = _signed(add("override", _override, "Order an action, whatever the device would decide."))
    override.add_argument("action", metavar="ACTION", help="what shall be done")
    bypass = _signed(
        add("bypass", _bypass, "Maintenance: the device decides and journals, but moves nothing.")
    )
    bypass.add_argument("switch", choices=("on", "off"))
    stop = add("stop", _stop, "Press the stop: safe values, until an operator's key releases it.")
    stop.add_argument("--release", action="store_true", help="lift the stop (needs --key)")
    stop.add_argument("--key", type=Path, metavar="FILE", help="the operator's private key, for --release")
    stop.add_argument("--operator", default="local", metavar="NAME", help="who does it")
    stop.add_argument("--because", default="", metavar="WHY", help="why, for the journal")
    return parser


def _signed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--key", type=Path, required=True, metavar="FILE", help="the operator's private key")
    parser.add_argument("--operator", required=True, metavar="NAME", help="who says it")
    parser.add_argument("--because", default="", metavar="WHY", help="why, for the journal")
    return parser


def _say(said: Mapping[str, Any], text: str, arguments: argparse.Namespace) -> None:
    print(unicode_only(json.dumps(said, ensure_ascii=False) if arguments.json else text))


def _config(arguments: argparse.Namespace) -> DeviceConfig:
    from aiotkit.edge.config import read_config

    return read_config(arguments.state)


def _until_told() -> Callable[[], bool]:
    """SIGTERM and SIGINT ask for a clean end."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    return told.is_set


def _run(arguments: argparse.Namespace) -> int:
    from aiotkit.edge.build import open_agent
    from aiotkit.edge.watch import Watch

    told, watch = _until_told(), Watch()
    watch.start()
    try:
        with open_agent(arguments.state, _config(arguments), watch=watch) as agent:
            agent.run(told, drain_s=arguments.drain_s)
    finally:
        watch.stop()
    return 0


def _actuator(arguments: argparse.Namespace) -> int:
    from aiotkit.edge.actuator import run_actuator

    run_actuator(arguments.state, _until_told())
    return 0


def _install(arguments: argparse.Namespace) -> int:
    from aiotkit.edge.watch import watched

    slots, archive = _slots(arguments), _archive(arguments.bundle)
    with watched():
        bundle = slots.install(archive)
    decision = bundle.manifest.decision
    said = {"bundle": bundle.digest, "decision": decision.id, "revision": decision.revision}
    text = f"installed {bundle.digest}: {decision.id} revision {decision.revision}"
    _say(said | {"release_counter": bundle.manifest.release_counter}, text, arguments)
    return 0


def _archive(path: Path) -> bytes:
    """The bytes of a bundle; nothing else is waited for, or handed on."""
    from aiotkit.bundle.manifest import MAX_BYTES
    from aiotkit.bundle.pack import MANIFEST
    from aiotkit.edge.disk import storage_error

    try:
        kind = path.stat().st_mode
        if not stat.S_ISREG(kind):
            found = "a folder" if stat.S_ISDIR(kind) else "a pipe or device"
            raise AiotkitError(f"{path}", expected="a bundle's file (.aiot)", found=found)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise storage_error(f"cannot read {path}", error) from error
    if not data.startswith(MANIFEST.encode()):
        raise AiotkitError(f"{path} is no bundle", expected=f"an archive that starts with {MANIFEST}")
    return data


def _rollback(arguments: argparse.Namespace) -> int:
    from aiotkit.edge.watch import watched

    slots = _slots(arguments)
    with watched():
        bundle = slots.rollback()
    _say({"bundle": bundle.digest}, f"rolled back to {bundle.digest}", arguments)
    return 0


def _readmit(arguments: argparse.Namespace) -> int:
    slots = _slots(arguments)
    denial = slots.trials.denial(arguments.bundle)
    if denial is None:
        known = ", ".join(one.bundle for one in slots.trials.denied) or "none"
        raise AiotkitError(f"readmit: {arguments.bundle[:80]}", expected="a bundle refused here", found=known)
    slots.readmit(denial.bundle)
    _say({"bundle": denial.bundle}, f"{denial.bundle} may be installed again", arguments)
    return 0


def _slots(arguments: argparse.Namespace) -> Slots:
    from aiotkit.edge.build import open_slots, read_trust
    from aiotkit.edge.disk import RealDisk

    config = _config(arguments)
    return open_slots(RealDisk(arguments.state), read_trust(arguments.state, config), config)


def _status(arguments: argparse.Namespace) -> int:
    from aiotkit.edge.status import look, status_lines

    said = look(arguments.state, _config(arguments), _slots(arguments))
    _say(said, "\n".join(status_lines(said)), arguments)
    return 0 if said["slots"]["active"] is not None else 1


def _ask(arguments: argparse.Namespace) -> int:
    from aiotkit.edge.disk import RealDisk

    _config(arguments)
    questions, unreadable = _questions(RealDisk(arguments.state))
    lines = [
        f"{q['id']}  {q['kind']}  proposed: {q['proposed']}\n"
        f"    {q['reason']}\n    answer one of: {', '.join(map(str, _listed(q)))}"
        for q in questions
    ] or ["no question is open"]
    lines += [f"warning: {name} cannot be read as a question" for name in unreadable]
    _say({"questions": questions, "unreadable": unreadable}, "\n".join(lines), arguments)
    return 0


def _questions(disk: Disk) -> tuple[list[dict[str, Any]], list[str]]:
    """The open questions, and the files that are none: one damaged file must not hide the others."""
    from aiotkit.edge.operator import OUTBOX

    questions: list[dict[str, Any]] = []
    unreadable = []
    for name in disk.list(OUTBOX):
        if not name.endswith(".json"):
            continue
        path = f"{OUTBOX}/{name}"
        try:
            question = loads(disk.read(path))
        except (StorageError, ValueError) as error:
            if isinstance(error, StorageError) and error.errno == errno.ENOENT:
                continue  # it was answered meanwhile
            question = None
        if isinstance(question, dict) and question.keys() >= _QUESTION:
            questions.append(question)
        else:
            unreadable.append(path)
    return questions, unreadable


def _listed(question: Mapping[str, object]) -> list[object]:
    actions = question["actions"]
    return actions if isinstance(actions, list) else []


def _answer(arguments: argparse.Namespace) -> int:
    return _leave(arguments, "answer", question=arguments.question, action=arguments.action)


def _override(arguments: argparse.Namespace) -> int:
    return _leave(arguments, "override", action=arguments.action)


def _bypass(arguments: argparse.Namespace) -> int:
    return _leave(arguments, "bypass", on=arguments.switch == "on")


def _leave(arguments: argparse.Namespace, kind: str, **said: Any) -> int:
    """Sign a message and put it into the agent's inbox, durably."""
    from aiotkit.edge.disk import RealDisk, make_folder, replace
    from aiotkit.edge.operator import INBOX

    identity, envelope = _message(arguments, kind, **said)
    disk = RealDisk(arguments.state)
    make_folder(disk, INBOX)
    replace(disk, f"{INBOX}/{identity}.json", envelope)
    _say({"id": identity}, f"{kind} {identity} is in the device's inbox", arguments)
    return 0


def _message(
    arguments: argparse.Namespace, kind: str, *, at_us: int | None = None, **said: Any
) -> tuple[str, bytes]:
    from pydantic import ValidationError

    from aiotkit.bundle.keys import SigningKey
    from aiotkit.edge.messages import make_message, sign_message

    config = _config(arguments)
    at_us = _now_us(arguments.state, config) if at_us is None else at_us
    try:
        message = make_message(
            config.device, kind, arguments.operator, at_us, because=arguments.because, **said
        )
    except ValidationError as error:
        raise OperatorError(f"{kind}: {error.errors()[0]['msg']}") from error
    return message.id, sign_message(message, SigningKey.load(arguments.key))


def _now_us(state: Path, config: DeviceConfig) -> int:
    """What time it is for the device: the wall's, or where its source has come to."""
    from aiotkit.edge.envelope import MAX_INSTANT_US
    from aiotkit.edge.health import read_health

    health = read_health(state) if config.clock == "source" else None
    now_us = None if health is None else health.get("now_us")
    if type(now_us) is int and 0 <= now_us <= MAX_INSTANT_US:
        return now_us
    return time.time_ns() // 1000


def _stop(arguments: argparse.Namespace) -> int:
    if arguments.release:
        return _release(arguments)
    try:
        with closing(_link(arguments.state)) as link:
            answer = dict(link.stop(arguments.operator, arguments.because))
    except ActuatorError as error:
        return _latch(arguments, error)
    durable = "" if answer["durable"] else ", but it could not be written down: it ends with that process"
    _say(answer, f"stopped; safe values are set{durable}", arguments)
    return 0 if answer["durable"] else StorageError.exit_code


def _latch(arguments: argparse.Namespace, error: ActuatorError) -> int:
    """The actuator process is gone: let it find the stop at its next start."""
    from aiotkit.edge.disk import RealDisk
    from aiotkit.edge.latches import write_stop

    try:
        now_us = _now_us(arguments.state, _config(arguments))
    except AiotkitError:
        now_us = time.time_ns() // 1000
    write_stop(RealDisk(arguments.state), arguments.operator, arguments.because, now_us)
    text = (
        f"{error}\nThe stop is latched: it holds from the actuator process's next start. Check the machine."
    )
    _say({"stopped": True, "durable": True, "told_driver": False}, text, arguments)
    return ActuatorError.exit_code


def _release(arguments: argparse.Namespace) -> int:
    if arguments.key is None:
        raise OperatorError("stop --release", expected="--key with an operator's private key", found="none")
    with closing(_link(arguments.state)) as link:
        _, envelope = _message(arguments, "stop", at_us=link.look().now_us, release=True)
        answer = link.release(envelope)
    _say(dict(answer), "released: rest, until somebody commands", arguments)
    return 0


def _link(state: Path) -> ActuatorLink:
    from aiotkit.edge.envelope import ACTUATOR_FILE, parse_actuator_config
    from aiotkit.edge.link import ActuatorLink

    try:
        name = parse_actuator_config((state / ACTUATOR_FILE).read_bytes()).socket
    except (OSError, AiotkitError):
        name = "actuator.sock"  # a stop must not fail for a bad file
    return ActuatorLink(state / name, timeout_s=1.0)


if __name__ == "__main__":
    sys.exit(main())
