"""The journal against a list: whatever is done in whatever order, it holds what a list would."""

from __future__ import annotations

import errno

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from worlds.crash import CrashDisk, Op
from worlds.journals import TRUST, point, signed

from aiotkit.core.errors import StorageError
from aiotkit.core.records import RecordType
from aiotkit.edge.journal import Journal

KINDS = [kind for kind in RecordType if kind is not RecordType.GAP]
Record = tuple[RecordType, bytes]


class JournalMachine(RuleBasedStateMachine):
    """``durable`` and ``waiting`` are the model: plain lists, index 0 is record 1."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = CrashDisk()
        self.durable: list[Record] = []
        self.waiting: list[Record] = []

    def _open(self) -> Journal:
        return Journal.open(self.disk, "dev", quota_bytes=1 << 20, segment_bytes=1500)

    @initialize()
    def begin(self) -> None:
        self.journal = self._open()

    @rule(kind=st.sampled_from(KINDS), payload=st.binary(max_size=400))
    def append(self, kind: RecordType, payload: bytes) -> None:
        expected = len(self.durable) + len(self.waiting) + 1
        assert self.journal.next_seq == expected
        assert self.journal.append(kind, payload) == expected
        self.waiting.append((kind, payload))

    @rule()
    def commit(self) -> None:
        self.durable += self.waiting
        self.waiting = []
        assert self.journal.commit() == len(self.durable)

    @rule(number=st.sampled_from([errno.ENOSPC, errno.EIO, errno.EROFS]), nth=st.integers(0, 3))
    def commit_on_a_refusing_disk(self, number: int, nth: int) -> None:
        countdown = [nth]

        def fail(op: Op) -> int | None:
            countdown[0] -= 1
            return number if countdown[0] < 0 else None

        self.disk.fail = fail
        found: int | None = None
        try:
            self.journal.commit()
            self.durable += self.waiting
            self.waiting = []
        except StorageError as error:
            found = error.errno
        self.disk.fail = _fine
        assert found in (None, number)

    @rule()
    def close_and_open(self) -> None:
        self.journal.close()
        self.waiting = []
        self.journal = self._open()
        assert self.journal.findings == ()

    @rule()
    def kill_and_open(self) -> None:
        self.disk.reboot()
        self.journal = self._open()
        # a commit that failed in its sync may have left its records: they count when they are found
        extra = self.journal.durable_seq - len(self.durable)
        assert 0 <= extra <= len(self.waiting)
        self.durable += self.waiting[:extra]
        self.waiting = []

    @precondition(lambda self: len(self.durable) > self.journal.delivered.seq)
    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(self.journal.delivered.seq + 1, len(self.durable)))
        first = self.journal.trim(signed(point(self.journal, seq)), TRUST)
        assert first <= seq + 1
        assert self.journal.delivered.seq == seq

    @invariant()
    def holds_what_the_list_holds(self) -> None:
        if not hasattr(self, "journal"):
            return
        assert self.journal.durable_seq == len(self.durable)
        first = self.journal.usage.first_seq
        assert first <= self.journal.delivered.seq + 1
        found = [(frame.seq, frame.type, frame.payload) for frame in self.journal.frames()]
        assert found == [(n, *record) for n, record in enumerate(self.durable, 1) if n >= first]

    @invariant()
    def knows_the_last_of_each_type(self) -> None:
        if not hasattr(self, "journal"):
            return
        for kind in (RecordType.DECISION, RecordType.OVERRIDE):
            newest = max((n for n, (k, _) in enumerate(self.durable, 1) if k is kind), default=None)
            frame = self.journal.last(kind)
            assert (frame.seq if frame else None) == newest
            assert frame is None or frame.payload == self.durable[frame.seq - 1][1]

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self.journal.commit()  # what a refused commit left half-written is gone with the next
            verified = self.journal.verify()
            assert verified.ok, verified.problems


def _fine(op: Op) -> None:
    return None


JournalMachine.TestCase.settings = settings(
    max_examples=120, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
test_the_journal_is_a_list_that_survives = JournalMachine.TestCase
test_the_journal_is_a_list_that_survives.__doc__ = (
    "Whatever is done in whatever order, it holds what a list would."
)
