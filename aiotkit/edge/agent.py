"""The device's loop: packet, windows and context, decide, journal, act, commit, deliver, give credit.

One thread, so that order is plain; every step is bounded. What only lasts a moment (uplink, inbox, health)
is done when no packet waits, or every few decisions. Nothing here judges: rules are in ``core``, in
``bundle.engine`` and in the modules beside this one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aiotkit.bundle.engine import Engine
from aiotkit.core.canonical import digest, utf8_text
from aiotkit.core.errors import ActuatorError, AiotkitError, SourceError, StorageError
from aiotkit.core.records import (
    Answer,
    DecisionInput,
    EngineState,
    OperatorInput,
    Question,
    RecordType,
    decision_payload,
    later_us,
    pack_windows,
)
from aiotkit.edge.acting import Acting
from aiotkit.edge.clocks import STANDING, Clock, PacketTimes
from aiotkit.edge.context import ContextCache
from aiotkit.edge.health import Health
from aiotkit.edge.keeper import Keeper
from aiotkit.edge.messages import Message
from aiotkit.edge.operator import OperatorDesk, Received
from aiotkit.edge.restore import Restored, fit_state, rewind
from aiotkit.edge.slots import Slots
from aiotkit.edge.sources import BadPacket, Packet, Source
from aiotkit.edge.uplink import FolderUplink
from aiotkit.edge.windows import Assembler, Gathered

log = logging.getLogger(__name__)
IDLE_S = 0.05
BUSY_DECISIONS = 32
MAX_BAD_IN_A_ROW = 100
_BAD_NOTE_S = 60.0
_LOOK_S = 1.0


@dataclass
class Parts:
    """What an agent is made of; see ``edge.build``."""

    source: Source
    clock: Clock
    keeper: Keeper
    acting: Acting
    desk: OperatorDesk
    slots: Slots
    health: Health
    uplink: FolderUplink | None
    source_clock: bool


@dataclass
class Counts:
    """What health tells."""

    packets: int = 0
    bad_packets: int = 0
    bad_in_a_row: int = 0
    time_set: int = 0
    decided: int = 0
    last_error: str = ""


class Agent:
    """Decides for one device until its source ends or it is told to stop.

    Args:
        parts: see ``Parts``.
        restored: what the journal says of the time before.
    """

    def __init__(self, parts: Parts, restored: Restored) -> None:
        self._parts, self._keeper, self._acting = parts, parts.keeper, parts.acting
        self._journal = parts.keeper.journal
        self.counts = Counts()
        self._state = restored.state
        self._last_end_us = restored.last_end_us
        self._looked_s = self._listened_s = self._bad_noted_s = -_BAD_NOTE_S
        self._decided_at_chores = 0
        parts.clock.advance(restored.last_now_us)
        self._bundle, self._generation, self._asked = restored.bundle or "", -1, ""
        self._adopt()
        self._mend_slots()
        if restored.unfinished is not None:
            self._acting.settle(*restored.unfinished)
        self._state = self._acting.beat(self._state, force=True)
        self._show_question()

    # -- the loop

    def run(self, should_stop: Callable[[], bool], *, drain_s: float = 5.0) -> None:
        """Run until the source ends or ``should_stop``; then commit and deliver for at most ``drain_s``.

        Raises:
            SourceError: the source can no longer be understood.
        """
        try:
            while not should_stop() and not self._parts.source.ended:
                self.step()
        finally:
            self._keeper.commit()
            self._drain(time.monotonic() + drain_s)
            self._tell_health()

    def step(self) -> None:
        """One turn: a packet if there is one, then what is due besides."""
        at_us: int | None = None
        lost, idle = self._keeper.lost, False
        try:
            packet = self._parts.source.next(self._patience_s())
            idle = packet is None
            if packet is not None:
                self._handle(packet)
                at_us = packet.at_us
        except BadPacket as error:
            self._bad_packet(error)
        self._chores(idle=idle)
        if idle:
            return
        durable = True
        if self._parts.source.acknowledges:  # acknowledged = synced, or said not to be
            durable = self._keeper.commit() and self._keeper.lost == lost
        self._parts.source.done(at_us, durable=durable)

    def _patience_s(self) -> float:
        wait_s = self._keeper.wait_s()
        return IDLE_S if wait_s is None else min(wait_s, IDLE_S)

    def _handle(self, packet: Packet) -> None:
        self._check_time(packet.at_us)
        self.counts.packets += 1
        self.counts.bad_in_a_row = 0
        self._parts.clock.advance(packet.at_us)
        self._context.feed(packet.context, packet.at_us)
        for gathered in self._assembler.feed(packet):
            self._decide(gathered, self._said())

    def _check_time(self, at_us: int) -> None:
        """Refuse a packet whose time cannot be believed; start anew where several agree on another time."""
        ruling = self._times.judge(at_us, self._parts.clock.now_us())
        if ruling.verdict == "refuse":
            raise BadPacket(ruling.why)
        if ruling.verdict == "anew":
            self._start_anew(at_us, ruling.why)
        if self._times.standing == STANDING:
            self._say(self._times.trouble)
            self._keeper.append(RecordType.SECURITY, {"kind": "source", "why": self._times.trouble})

    def _start_anew(self, at_us: int, why: str) -> None:
        """The source's time was wrong, or is now: what is known of windows and ages counts no more."""
        self.counts.time_set += 1
        self._say(why)
        self._keeper.append(RecordType.SECURITY, {"kind": "source", "why": why})
        self._parts.clock.set(at_us)
        if self._last_end_us is not None and at_us < self._last_end_us:
            self._state = rewind(self._state, at_us)
        self._last_end_us = None
        decision = self._engine.decision
        self._assembler, self._context = Assembler(decision), ContextCache(decision.context)

    def _chores(self, *, idle: bool) -> None:
        now_s = time.monotonic()
        lockstep = self._parts.source_clock and not idle  # a simulated hour may pass until the next turn
        self._state = self._acting.beat(self._state, force=lockstep)
        if lockstep or now_s - self._listened_s >= IDLE_S:
            self._listened_s = now_s
            self._listen()
        if self._keeper.wait_s() == 0.0:
            self._keeper.commit()
        if idle or self.counts.decided - self._decided_at_chores >= BUSY_DECISIONS:
            self._decided_at_chores = self.counts.decided
            if self._parts.uplink is not None:
                self._parts.uplink.step()
            if now_s - self._looked_s >= _LOOK_S:
                self._looked_s = now_s
                self._look_around()
        if self._parts.health.due:
            self._tell_health()

    # -- deciding

    def _decide(self, gathered: Gathered, operator: OperatorInput) -> None:
        started = time.monotonic_ns()
        now_us = self._parts.clock.now_us()
        window = pack_windows(gathered.windows)
        seq = self._journal.next_seq + 1  # the window record comes first
        seed = f"{self._journal.device}/{self._journal.journal_id}/{seq}"
        given = DecisionInput(
            seed=seed,
            now_us=now_us,
            window_end_us=gathered.end_us,
            windows=gathered.windows,
            context=self._context.readings(now_us),
            faults={**self._context.faults, **gathered.faults},
            operator=operator,
        )
        before = self._state
        decided, stages = self._engine.decide(before, given)
        timing = {
            "wall_us": time.time_ns() // 1000,
            "monotonic_us": started // 1000,
            "decide_us": round((time.monotonic_ns() - started) / 1e3, 1),
            "stages_us": {name: round(spent, 1) for name, spent in stages.items()},
        }
        self._keeper.append(RecordType.WINDOW, window)
        named = self._engine.decision
        payload = decision_payload(
            given,
            before,
            decided,
            window_digest=digest(window),
            bundle=self._bundle,
            decision=(named.id, named.revision),
            timing=timing,
        )
        kept = self._keeper.append(RecordType.DECISION, payload)
        self._state = self._acting.carry_out(before, decided, kept, seed, now_us)
        if operator.override is not None and decided.command is None and not operator.dry_run:
            self._state = self._acting.let_go(self._state, before.posture, operator.override, seed, kept)
        self.counts.decided += 1
        self._last_end_us = gathered.end_us
        if decided.verify.hit:
            self._ask_for_check(seed, now_us)
        self._show_question()

    def _ask_for_check(self, seed: str, now_us: int) -> None:
        """This decision drew the random check: people are asked what state the machine is in."""
        until_us = later_us(now_us, self._engine.decision.outcome.horizon_s)
        question = Question(seed, "inspect", None, until_us, "drawn at random: what state is it in?")
        try:
            self._parts.desk.end_checks(now_us)
            self._parts.desk.ask_for_check(question)
        except StorageError as error:
            self._say(str(error))

    def _said(self) -> OperatorInput:
        return OperatorInput(bypass=self._parts.desk.bypass or self._acting.stopped)

    def _show_question(self) -> None:
        question = self._state.question
        if question is not None and self._parts.clock.now_us() > question.until_us:
            question = None
        try:
            fresh = self._parts.desk.publish(question, sorted(self._engine.decision.actions))
        except StorageError as error:
            self._say(str(error))
            return
        if fresh and question is not None and question.id != self._asked:
            self._asked = question.id
            said = {name: getattr(question, name) for name in type(question).__slots__}
            self._keeper.append(RecordType.QUESTION, {"question": said})

    # -- people

    def _listen(self) -> None:
        now_us = self._parts.clock.now_us()
        try:
            for received in self._parts.desk.poll(now_us):
                self._take(received, now_us)
            self._show_question()
        except StorageError as error:
            self._say(str(error))

    def _take(self, received: Received, now_us: int) -> None:
        message = received.message
        if message is None:
            log.warning("inbox/%s: %s", received.name, received.refusal)
            self._keeper.append(
                RecordType.SECURITY, {"kind": "operator", "why": received.refusal, **received.to_json()}
            )
            self._parts.desk.finish(received)
            return
        if message.kind == "stop" and not message.release:
            self._obey(message, received.envelope)  # a stop waits for no paper
        kind = RecordType.ANSWER if message.kind == "answer" else RecordType.OVERRIDE
        self._keeper.append(kind, {"at_us": now_us, **received.to_json()})
        if not self._keeper.commit():
            return
        self._parts.desk.finish(received)
        if message.kind != "stop" or message.release:
            self._obey(message, received.envelope)

    def _obey(self, message: Message, envelope: bytes) -> None:
        try:
            if message.kind == "stop":
                self._stop(message, envelope)
            elif message.kind == "bypass":
                now_us = self._parts.clock.now_us()
                self._parts.desk.set_bypass(on=message.on is True, by=message.operator, now_us=now_us)
            else:
                self._decide_for(message)
        except (ActuatorError, StorageError) as error:
            self._say(str(error))

    def _stop(self, message: Message, envelope: bytes) -> None:
        if message.release:
            self._acting.release(envelope)
        else:
            self._acting.stop(message.operator, message.because)
        self._state = self._acting.beat(self._state, force=True)

    def _decide_for(self, message: Message) -> None:
        """An answer or an override: decide at once, on what was seen last."""
        action = str(message.action)
        if action not in self._engine.decision.actions:
            self._say(f"operator {message.operator}: unknown action '{action[:64]}'")
            return
        latest = self._assembler.latest
        if message.kind == "override":
            seen = latest or self._assembler.blank(self._parts.clock.now_us())
            self._decide(seen, replace(self._said(), override=action))
            return
        question = self._state.question
        if question is None or question.id != message.question or latest is None:
            self._say(f"operator {message.operator}: the question '{message.question}' is not open")
            return
        answer = Answer(question.id, action, message.operator, message.at_us)
        self._decide(latest, replace(self._said(), answer=answer))

    # -- bundle, trouble, end

    def _look_around(self) -> None:
        """What need not be looked at more than once a second."""
        try:
            self._parts.desk.forget(self._parts.clock.now_us())
            if self._parts.slots.generation != self._generation:
                self._adopt()
        except AiotkitError as error:
            self._say(str(error))

    def _mend_slots(self) -> None:
        """Write a lost or damaged pointer again, as long as there is another."""
        try:
            self._parts.slots.repair()  # what was wrong is journaled already: it was seen at boot
        except AiotkitError as error:
            self._say(f"slots: {error}")

    def _adopt(self) -> None:
        """Take the bundle that the slots say runs; what was known so far is kept where it fits."""
        boot = self._parts.slots.boot()
        first, self._generation = self._generation < 0, boot.generation
        for event in boot.events:
            self._keeper.append(RecordType.SECURITY, {"kind": "slots", "event": event.to_json()})
        if boot.bundle.digest == self._bundle and not first:
            return
        self._engine = Engine(boot.bundle.files)
        decision = self._engine.decision
        if self._bundle not in ("", boot.bundle.digest):
            self._state = fit_state(self._state, decision)
        self._bundle = boot.bundle.digest
        self._assembler = Assembler(decision, self._last_end_us)
        self._context = ContextCache(decision.context)
        by_clock = not self._parts.source_clock
        self._times = PacketTimes(decision.window.every_s, self._last_end_us, by_clock=by_clock)
        self._asked = self._state.question.id if self._state.question is not None else ""
        if self._parts.uplink is not None:
            self._parts.uplink.upload = decision.needs.upload
        log.info("bundle %s, decision %s revision %d", self._bundle, decision.id, decision.revision)

    def _bad_packet(self, error: BadPacket) -> None:
        """Refuse one packet; a source that sends nothing else is no source."""
        counts = self.counts
        counts.bad_packets += 1
        counts.bad_in_a_row += 1
        self._say(str(error))
        if time.monotonic() - self._bad_noted_s >= _BAD_NOTE_S:
            self._bad_noted_s = time.monotonic()
            self._keeper.append(RecordType.SECURITY, {"kind": "source", "why": utf8_text(str(error))[:400]})
        if counts.bad_in_a_row >= MAX_BAD_IN_A_ROW:
            raise SourceError(
                f"source: {counts.bad_in_a_row} bad packets in a row",
                found=str(error),
                do="Check the sender.",
            ) from error

    def _say(self, trouble: str) -> None:
        trouble = utf8_text(trouble)
        if trouble != self.counts.last_error:
            log.warning("%s", trouble)
        self.counts.last_error = trouble

    def _drain(self, until_s: float) -> None:
        uplink = self._parts.uplink
        if uplink is not None:
            uplink.hurry()
        while uplink is not None and uplink.sent_seq < self._journal.durable_seq:
            if not uplink.step(flush=True):
                if time.monotonic() >= until_s:
                    return
                time.sleep(IDLE_S)

    def _tell_health(self) -> None:
        parts, counts, uplink = self._parts, self.counts, self._parts.uplink
        said: dict[str, Any] = {
            "device": self._journal.device,
            "journal_id": self._journal.journal_id,
            "mode": self._mode(),
            "now_us": parts.clock.now_us(),
            "wall_us": time.time_ns() // 1000,
            "packets": counts.packets,
            "bad_packets": counts.bad_packets,
            "time_set": counts.time_set,
            "source_error": self._times.trouble,
            "decided": counts.decided,
            "next_seq": self._journal.next_seq,
            "durable_seq": self._journal.durable_seq,
            "commit_ms": round(self._keeper.commit_ms, 3),
            "delivered_seq": self._journal.delivered.seq,
            "sent_seq": None if uplink is None else uplink.sent_seq,
            "uplink_error": "" if uplink is None else uplink.last_error,
            "journal_error": self._keeper.trouble,
            "actuator_error": self._acting.trouble,
            "last_error": counts.last_error,
            "stopped": self._acting.stopped,
            "bypass": parts.desk.bypass,
            "bundle": self._bundle,
            "decision": self._engine.decision.id,
            "revision": self._engine.decision.revision,
            "generation": self._generation,
            "in_force": None if self._state.posture is None else self._state.posture.action,
            "last_window_end_us": self._last_end_us,
        }
        parts.health.write({**said, "status": self._status(said)})

    def _mode(self) -> str:
        if not self._keeper.writable:
            return "stop_actuating"
        if self._acting.stopped:
            return "stopped"
        return "bypass" if self._parts.desk.bypass else self._engine.decision.autonomy.mode

    @staticmethod
    def _status(said: dict[str, Any]) -> str:
        if said["journal_error"] or said["actuator_error"]:
            return "red"
        doubts = ("uplink_error", "source_error", "bad_packets", "time_set")
        return "yellow" if any(said[doubt] for doubt in doubts) else "green"

    @property
    def state(self) -> EngineState:
        """What the next decision starts from."""
        return self._state
