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

from aiotkit.core.canonical import digest, utf8_text
from aiotkit.core.errors import ActuatorError, AiotkitError, EngineError, SourceError, StorageError
from aiotkit.core.records import (
    Answer,
    Decided,
    DecisionInput,
    EngineState,
    OperatorInput,
    RecordType,
    decision_payload,
    pack_windows,
)
from aiotkit.edge.acting import Acting
from aiotkit.edge.clocks import STANDING, Clock, PacketTimes
from aiotkit.edge.context import ContextCache
from aiotkit.edge.fallback import decide_without
from aiotkit.edge.health import Counts, Health, status_of
from aiotkit.edge.keeper import Keeper
from aiotkit.edge.messages import Message
from aiotkit.edge.people import People
from aiotkit.edge.restore import Restored, fit_state, rewind
from aiotkit.edge.sources import BadPacket, Packet, Source
from aiotkit.edge.uplink import FolderUplink
from aiotkit.edge.ward import Ward
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
    people: People
    ward: Ward
    health: Health
    uplink: FolderUplink | None
    counts: Counts
    source_clock: bool


class Agent:
    """Decides for one device until its source ends or it is told to stop.

    Args:
        parts: see ``Parts``.
        restored: what the journal says of the time before.
    """

    def __init__(self, parts: Parts, restored: Restored) -> None:
        self._parts, self._keeper, self._acting = parts, parts.keeper, parts.acting
        self._people, self._ward, self._journal = parts.people, parts.ward, parts.keeper.journal
        self.counts = parts.counts
        self._state = restored.state
        self._last_end_us = restored.last_end_us
        self._looked_s = self._listened_s = self._bad_noted_s = -_BAD_NOTE_S
        self._decided_at_chores = 0
        parts.clock.advance(restored.last_now_us)
        self._adopted(restored.bundle or "")
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
            self._decide(gathered, self._people.said())

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
        decision = self._decision
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
        try:
            decided, stages = self._ward.decide(before, given)
        except EngineError as error:
            if self._ward.failed(str(error)):
                self._adopted(self._bundle)
                self._decide(gathered, operator)
            else:
                self._decide_without(gathered, given, window, str(error))
            return
        decide_us = (time.monotonic_ns() - started) / 1e3
        timing = {
            "wall_us": time.time_ns() // 1000,
            "monotonic_us": started // 1000,
            "decide_us": round(decide_us, 1),
            "stages_us": {name: round(spent, 1) for name, spent in stages.items()},
        }
        self._keeper.append(RecordType.WINDOW, window)
        payload = decision_payload(
            given,
            before,
            decided,
            window_digest=digest(window),
            bundle=self._bundle,
            decision=(self._decision.id, self._decision.revision),
            timing=timing,
        )
        kept = self._keeper.append(RecordType.DECISION, payload)
        self._carry_out(decided, kept, given)
        self.counts.decided += 1
        self._last_end_us = gathered.end_us
        if decided.verify.hit:
            self._people.ask_for_check(seed, now_us, self._decision)
        self._show_question()
        if self._ward.count(decided, decide_us / 1e3):
            self._adopted(self._bundle)

    def _decide_without(self, gathered: Gathered, given: DecisionInput, window: bytes, why: str) -> None:
        """The bundle cannot decide, and no other can: what people say, or recovery."""
        before = self._state
        decided = decide_without(self._decision, before, given, why)
        self._say(why)
        said: dict[str, Any] = {
            "kind": "bundle",
            "bundle": self._ward.digest,
            "why": why,
            "window": digest(window),
        }
        self._keeper.append(RecordType.WINDOW, window)
        said |= {"mode": decided.mode, "final": decided.final}
        kept = self._keeper.append(RecordType.SECURITY, said)
        self._carry_out(decided, kept, given)
        self.counts.decided += 1
        self._last_end_us = gathered.end_us
        self._show_question()

    def _carry_out(self, decided: Decided, kept: int | None, given: DecisionInput) -> None:
        before, operator = self._state, given.operator
        self._state = self._acting.carry_out(before, decided, kept, given.seed, given.now_us)
        if operator.override is not None and decided.command is None and not operator.dry_run:
            self._state = self._acting.let_go(
                self._state, before.posture, operator.override, given.seed, kept
            )

    def _show_question(self) -> None:
        self._people.show(self._state.question, self._parts.clock.now_us(), sorted(self._decision.actions))

    # -- people

    def _listen(self) -> None:
        try:
            for message in self._people.listen(self._parts.clock.now_us()):
                if message.kind == "stop":
                    self._state = self._acting.beat(self._state, force=True)
                elif message.kind != "bypass":
                    self._decide_for(message)
            self._show_question()
        except (ActuatorError, StorageError) as error:
            self._say(str(error))

    def _decide_for(self, message: Message) -> None:
        """An answer or an override: decide at once, on what was seen last."""
        action = str(message.action)
        if action not in self._decision.actions:
            self._say(f"operator {message.operator}: unknown action '{action[:64]}'")
            return
        latest = self._assembler.latest
        if message.kind == "override":
            seen = latest or self._assembler.blank(self._parts.clock.now_us())
            self._decide(seen, replace(self._people.said(), override=action))
            return
        question = self._state.question
        if question is None or question.id != message.question or latest is None:
            self._say(f"operator {message.operator}: the question '{message.question}' is not open")
            return
        answer = Answer(question.id, action, message.operator, message.at_us)
        self._decide(latest, replace(self._people.said(), answer=answer))

    # -- bundle, trouble, end

    def _look_around(self) -> None:
        """What need not be looked at more than once a second."""
        try:
            self._people.forget(self._parts.clock.now_us())
            if self._ward.renew():
                self._adopted(self._bundle)
        except AiotkitError as error:
            self._say(str(error))

    def _adopted(self, before: str) -> None:
        """The ward has taken a bundle after ``before``; what was known so far is kept where it fits."""
        self._decision, self._bundle = self._ward.engine.decision, self._ward.digest
        decision = self._decision
        if before not in ("", self._bundle):
            self._state = fit_state(self._state, decision)
        self._assembler = Assembler(decision, self._last_end_us)
        self._context = ContextCache(decision.context)
        by_clock = not self._parts.source_clock
        self._times = PacketTimes(decision.window.every_s, self._last_end_us, by_clock=by_clock)
        self._people.known(self._state.question)
        if self._parts.uplink is not None:
            self._parts.uplink.upload = decision.needs.upload

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
        self.counts.say(trouble)

    def close(self) -> None:
        """An end in order, which a bundle on probation is not blamed for."""
        self._ward.close()

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
            "bypass": self._people.bypass,
            **self._ward.tell(),
            "in_force": None if self._state.posture is None else self._state.posture.action,
            "last_window_end_us": self._last_end_us,
        }
        parts.health.write({**said, "status": status_of(said)})

    def _mode(self) -> str:
        if not self._keeper.writable:
            return "stop_actuating"
        if self._acting.stopped:
            return "stopped"
        return "bypass" if self._people.bypass else self._decision.autonomy.mode

    @property
    def state(self) -> EngineState:
        """What the next decision starts from."""
        return self._state
