"""The operator's desk of a device: an inbox of signed messages, an outbox of questions, and bypass.

Folders ``operator/inbox``, ``outbox`` and ``done`` under the state folder. A message is handled in this
order: judged, journaled by the agent, moved to ``done`` (durably), and only then acted upon: after a crash
it may have been journaled twice, but is never obeyed twice.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aiotkit.bundle.trust import Trust
from aiotkit.core.canonical import canonical_bytes, digest, utf8_text
from aiotkit.core.errors import AiotkitError, OperatorError, StorageError
from aiotkit.core.records import Question
from aiotkit.edge.disk import ASIDE, Disk, make_folder, replace
from aiotkit.edge.messages import MAX_MESSAGE, Message, check_message, open_message

log = logging.getLogger(__name__)
INBOX, OUTBOX, DONE = "operator/inbox", "operator/outbox", "operator/done"
BYPASS = "operator/bypass.json"
#: how the files of requests to look at a machine begin
CHECK = "check-"
MAX_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Received:
    """A file from the inbox: a message that may be believed, or why not."""

    name: str
    envelope: bytes
    message: Message | None
    refusal: str = ""

    def to_json(self) -> dict[str, object]:
        """What a journal keeps of it."""
        said = None if self.message is None else self.message.model_dump(mode="json", exclude_none=True)
        return {"file": utf8_text(self.name)[:120], "digest": digest(self.envelope), "message": said}


class OperatorDesk:
    """Messages in, questions out.

    Args:
        disk: the state folder.
        device: whom messages must name.
        trust: whose keys count (role ``operator``).
        seen: ids of messages that were obeyed, whatever lies in ``done``: the journal remembers them.
    """

    def __init__(self, disk: Disk, device: str, trust: Trust, seen: Iterable[str] = ()) -> None:
        self._disk, self._device, self._trust = disk, device, trust
        self._stuck: set[str] = set()
        self._open: Question | None = None
        for folder in (INBOX, OUTBOX, DONE):
            make_folder(disk, folder)
        self._seen = {name.partition("-")[2].removesuffix(".json") for name in disk.list(DONE)} | set(seen)
        self.bypass = self._read_bypass()

    def poll(self, now_us: int) -> list[Received]:
        """What lies in the inbox, oldest name first; at most ``MAX_AT_ONCE``. Nothing is moved yet."""
        names = [n for n in self._disk.list(INBOX) if n.endswith(".json") and n not in self._stuck]
        return [self._judge(name, now_us) for name in names[:MAX_AT_ONCE]]

    def _judge(self, name: str, now_us: int) -> Received:
        try:
            if self._disk.size(f"{INBOX}/{name}") is None:  # reading a pipe would wait for its writer
                return Received(name, b"", None, "it is no regular file")
            data = self._disk.read(f"{INBOX}/{name}", 0, MAX_MESSAGE + 1)
        except StorageError as error:
            return Received(name, b"", None, utf8_text(str(error)))
        try:
            message = open_message(data, self._trust)
            check_message(message, self._device, now_us, self._seen)
        except AiotkitError as error:
            return Received(name, data, None, str(error))
        return Received(name, data, message)

    def finish(self, received: Received) -> None:
        """Move a message out of the inbox, durably; a refused one is removed.

        Raises:
            StorageError: it could not be moved, and must not be obeyed.
        """
        path = f"{INBOX}/{received.name}"
        message = received.message
        if message is None:
            try:
                self._disk.unlink(path)
            except StorageError as error:
                log.warning("inbox: %s", error)
                self._stuck.add(received.name)
            return
        self._disk.rename(path, f"{DONE}/{message.until_us:016d}-{message.id}.json")
        self._disk.sync_folder(DONE)
        self._disk.sync_folder(INBOX)
        self._seen.add(message.id)

    def forget(self, now_us: int) -> None:
        """Remove handled messages that could not be believed again anyway: they have ended."""
        for name in self._disk.list(DONE):
            until, _, rest = name.partition("-")
            if until.isdecimal() and int(until) <= now_us:
                self._disk.unlink(f"{DONE}/{name}")
                self._seen.discard(rest.removesuffix(".json"))

    def set_bypass(self, *, on: bool, by: str, now_us: int) -> None:
        """Switch bypass, durably: it holds over restarts."""
        replace(self._disk, BYPASS, canonical_bytes({"format": 1, "on": on, "by": by, "at_us": now_us}))
        self.bypass = on

    def _read_bypass(self) -> bool:
        folder, _, name = BYPASS.rpartition("/")
        if name not in self._disk.list(folder):
            return False
        try:
            if self._disk.size(BYPASS) is None:
                raise ValueError(f"{BYPASS} is no regular file")
            return json.loads(self._disk.read(BYPASS, 0, MAX_MESSAGE))["on"] is not False
        except (ValueError, KeyError, TypeError, RecursionError, StorageError):
            log.warning("%s cannot be read: bypass is on", BYPASS)
            return True

    def publish(self, question: Question | None, actions: Sequence[str]) -> bool:
        """Show the open question to people, or none; True when it is a new one."""
        if question == self._open:
            return False
        fresh = question is not None and (self._open is None or question.id != self._open.id)
        wanted = None if question is None else file_name(question)
        for name in self._disk.list(OUTBOX):
            if name != wanted and not name.startswith(CHECK):
                self._disk.unlink(f"{OUTBOX}/{name}")
        if question is not None:
            self._show(f"{OUTBOX}/{wanted}", question, actions)
        self._open = question
        return fresh

    def ask_for_check(self, question: Question) -> None:
        """Ask people to look at the machine, whatever was decided; stands until ``question.until_us``."""
        self._show(f"{OUTBOX}/{CHECK}{question.until_us:016d}-{file_name(question)}", question, ())

    def end_checks(self, now_us: int) -> None:
        """Take back requests to look whose time is over."""
        for name in self._disk.list(OUTBOX):
            until = name.removeprefix(CHECK).partition("-")[0]
            if name.startswith(CHECK) and until.isdecimal() and int(until) <= now_us:
                self._disk.unlink(f"{OUTBOX}/{name}")

    def _show(self, path: str, question: Question, actions: Sequence[str]) -> None:
        self._disk.write(path + ASIDE, question_document(self._device, question, actions))
        self._disk.rename(path + ASIDE, path)


def file_name(question: Question) -> str:
    """A question's file in the outbox.

    >>> file_name(Question("dev/abc/7", "ask", None, 0, ""))
    'dev-abc-7.json'
    """
    return re.sub(r"[^A-Za-z0-9-]", "-", question.id)[:200] + ".json"


def question_document(device: str, question: Question, actions: Sequence[str]) -> bytes:
    """What people read: the question and the actions that may be answered."""
    said = {name: getattr(question, name) for name in Question.__slots__}
    return canonical_bytes({"format": 1, "device": device, "actions": list(actions), **said})


def open_questions(disk: Disk) -> list[dict[str, object]]:
    """The questions in the outbox; ``OperatorError`` when one cannot be read."""
    found = []
    for name in disk.list(OUTBOX):
        if not name.endswith(".json"):
            continue
        try:
            found.append(json.loads(disk.read(f"{OUTBOX}/{name}")))
        except ValueError as error:
            raise OperatorError(f"outbox/{name}", found=str(error)) from error
    return found
