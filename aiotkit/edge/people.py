"""What people say to an agent and are asked by it: inbox, stop, bypass, questions, requests to look."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from aiotkit.core.decision import Decision
from aiotkit.core.errors import ActuatorError, StorageError
from aiotkit.core.records import OperatorInput, Question, RecordType, later_us
from aiotkit.edge.acting import Acting
from aiotkit.edge.keeper import Keeper
from aiotkit.edge.messages import Message
from aiotkit.edge.operator import OperatorDesk, Received

log = logging.getLogger(__name__)


class People:
    """The agent's side of the operator's desk.

    Args:
        desk: inbox and outbox.
        keeper: where what they said is journaled.
        acting: whom a stop is handed to at once.
        say: where trouble is told.
    """

    def __init__(
        self, desk: OperatorDesk, keeper: Keeper, acting: Acting, say: Callable[[str], None]
    ) -> None:
        self._desk, self._keeper, self._acting, self._say = desk, keeper, acting, say
        self._asked = ""

    @property
    def bypass(self) -> bool:
        """Whether people want the device to move nothing."""
        return self._desk.bypass

    def said(self) -> OperatorInput:
        """What holds for the next decision."""
        return OperatorInput(bypass=self._desk.bypass or self._acting.stopped)

    def listen(self, now_us: int) -> Iterator[Message]:
        """The messages that are to be obeyed now, one by one; a stop and a bypass are obeyed already.

        Raises:
            StorageError: the inbox cannot be read, or a message could not be moved and is not obeyed.
        """
        for received in self._desk.poll(now_us):
            yield from self._take(received, now_us)

    def _take(self, received: Received, now_us: int) -> Iterator[Message]:
        message = received.message
        if message is None:
            log.warning("inbox/%s: %s", received.name, received.refusal)
            self._keeper.append(
                RecordType.SECURITY, {"kind": "operator", "why": received.refusal, **received.to_json()}
            )
            self._desk.finish(received)
            return
        stop = message.kind == "stop" and not message.release
        if stop and self._obey(message, received.envelope, now_us):  # a stop waits for no paper
            yield message
        kind = RecordType.ANSWER if message.kind == "answer" else RecordType.OVERRIDE
        self._keeper.append(kind, {"at_us": now_us, **received.to_json()})
        if not self._keeper.commit():
            return
        self._desk.finish(received)
        if not stop and self._obey(message, received.envelope, now_us):
            yield message

    def _obey(self, message: Message, envelope: bytes, now_us: int) -> bool:
        try:
            if message.kind == "stop" and message.release:
                self._acting.release(envelope)
            elif message.kind == "stop":
                self._acting.stop(message.operator, message.because)
            elif message.kind == "bypass":
                self._desk.set_bypass(on=message.on is True, by=message.operator, now_us=now_us)
        except (ActuatorError, StorageError) as error:
            self._say(str(error))
            return False
        return True

    def show(self, question: Question | None, now_us: int, actions: Sequence[str]) -> None:
        """Show the open question, or that there is none; a new one is journaled."""
        if question is not None and now_us > question.until_us:
            question = None
        try:
            fresh = self._desk.publish(question, actions)
        except StorageError as error:
            self._say(str(error))
            return
        if fresh and question is not None and question.id != self._asked:
            self._asked = question.id
            said = {name: getattr(question, name) for name in type(question).__slots__}
            self._keeper.append(RecordType.QUESTION, {"question": said})

    def known(self, question: Question | None) -> None:
        """A question that was journaled before a restart, or by another bundle's engine."""
        self._asked = question.id if question is not None else ""

    def ask_for_check(self, seed: str, now_us: int, decision: Decision) -> None:
        """A decision drew the random check: people are asked what state the machine is in."""
        until_us = later_us(now_us, decision.outcome.horizon_s)
        question = Question(seed, "inspect", None, until_us, "drawn at random: what state is it in?")
        try:
            self._desk.end_checks(now_us)
            self._desk.ask_for_check(question)
        except StorageError as error:
            self._say(str(error))

    def forget(self, now_us: int) -> None:
        """Remove what was handled and has ended; ``StorageError`` when the disk refuses."""
        self._desk.forget(now_us)
