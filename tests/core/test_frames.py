"""Frames and their chain: every changed byte is found, and payloads can be withheld (J7, J8)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import ChainError, JournalError
from aiotkit.core.frames import (
    HEAD_SIZE,
    HEADER_SIZE,
    MAX_PAYLOAD,
    decode,
    decode_all,
    encode,
    genesis,
    make_frame,
    withhold,
)
from aiotkit.core.records import RecordType

START = genesis("press-1", "00ff")
PAYLOADS = [b'{"a":1}', b"", bytes(range(40)), b"x"]


def chain(payloads=PAYLOADS, previous=START, first=1):
    frames = []
    for seq, payload in enumerate(payloads, first):
        frames.append(make_frame(RecordType(1 + seq % 12), seq, payload, previous))
        previous = frames[-1].head
    return frames


def as_bytes(frames):
    return b"".join(map(encode, frames))


DATA = as_bytes(chain())


def first_bad(data, previous=START):
    """The sequence number at which reading stops, or None."""
    seq = 1
    try:
        for frame in decode_all(data, previous, 1):
            seq = frame.seq + 1
    except ChainError as error:
        return seq if f"record {seq}" in str(error) else -1  # the error must name it
    return None


@given(st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=12))
def test_what_was_written_is_read_whether_withheld_or_not(records):
    """Any run of records comes back, and erasing payloads leaves the chain intact."""
    frames = chain([payload for payload, _ in records])
    frames = [withhold(f) if hidden else f for f, (_, hidden) in zip(frames, records, strict=True)]
    read = list(decode_all(as_bytes(frames), START, 1))
    assert read == frames
    assert [f.payload for f in read] == [None if hidden and p else p for p, hidden in records]
    assert [f.length for f in read] == [len(p) for p, _ in records]


@pytest.mark.parametrize("withheld", [False, True], ids=["whole", "withheld"])
def test_J7_every_changed_bit_is_found(withheld):
    """Flip any bit of any byte: reading stops at or before the record it lies in."""
    frames = [withhold(f) if withheld else f for f in chain()]
    data, ends = as_bytes(frames), []
    for frame in frames:
        ends.append((ends[-1] if ends else 0) + len(encode(frame)))
    for at in range(len(data)):
        damaged_record = 1 + sum(at >= end for end in ends)
        for bit in range(8):
            broken = bytearray(data)
            broken[at] ^= 1 << bit
            assert first_bad(bytes(broken)) == damaged_record, (at, bit)


def test_J7_every_cut_is_found_or_leaves_whole_records():
    """Bytes that end within a record are refused; a cut between records shows in the count alone."""
    ends = {0}
    for frame in chain():
        ends.add(max(ends) + len(encode(frame)))
    for cut in range(len(DATA)):
        assert (first_bad(DATA[:cut]) is None) is (cut in ends)


def test_J8_records_cannot_be_dropped_inserted_swapped_or_repeated():
    """Any other order or number of records breaks the chain at the first one out of place."""
    frames = chain()
    assert first_bad(as_bytes(frames[1:])) == 1
    assert first_bad(as_bytes([frames[0], *frames[2:]])) == 2
    assert first_bad(as_bytes([frames[0], frames[2], frames[1], frames[3]])) == 2
    assert first_bad(as_bytes([frames[0], frames[0], *frames[1:]])) == 2


def test_J8_a_record_cannot_be_replaced_even_with_its_own_head_recomputed():
    """A forged record is consistent in itself and still does not carry on: the next one gives it away."""
    frames = chain()
    forged = make_frame(frames[1].type, 2, b"forged", frames[0].head)
    assert first_bad(as_bytes([frames[0], forged, *frames[2:]])) == 3


def test_J8_records_of_another_journal_do_not_fit():
    """The first head holds device and journal id: nothing can be spliced in from elsewhere."""
    other = as_bytes(chain(previous=genesis("press-2", "00ff")))
    assert first_bad(other) == 1
    assert genesis("a", "bc") != genesis("ab", "c")
    assert genesis("press-1", "00fe") != START


def test_J8_an_old_run_of_records_does_not_fit_later():
    """A replayed segment has the wrong sequence numbers and the wrong head before it."""
    frames = chain()
    with pytest.raises(ChainError, match=r"record 5; expected sequence number 5; found 1"):
        list(decode_all(DATA, frames[-1].head, 5))


def test_a_frame_is_read_in_the_midst_of_others():
    """Given the head before it, any record can be verified alone."""
    frames = chain()
    at = len(encode(frames[0])) + len(encode(frames[1]))
    frame, behind = decode(memoryview(DATA), at, frames[1].head, 3)
    assert (frame, behind) == (frames[2], at + HEADER_SIZE + 40 + HEAD_SIZE)


def test_a_length_beyond_reason_is_refused_before_anything_is_read():
    """A damaged length neither reads far nor allocates."""
    broken = bytearray(DATA)
    broken[13:17] = (MAX_PAYLOAD + 1).to_bytes(4, "little")
    with pytest.raises(ChainError, match="record 1: its header is damaged"):
        list(decode_all(bytes(broken), START, 1))


def test_a_payload_no_reader_would_accept_is_never_written():
    """What cannot be read back is refused at writing, with what to do."""
    with pytest.raises(JournalError, match=rf"too large; expected at most {MAX_PAYLOAD} bytes.*Shorten"):
        make_frame(RecordType.WINDOW, 1, bytes(MAX_PAYLOAD + 1), START)


def test_the_bytes_of_format_1_stay_what_they_are():
    """A journal written years ago is read by every later version."""
    frame = make_frame(RecordType.DECISION, 1, b"{}", START)
    assert encode(frame).hex() == FORMAT_1
    assert next(decode_all(bytes.fromhex(FORMAT_1), START, 1)) == frame


FORMAT_1 = (
    "414a31000201000000000000000200000044136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060"
    "f61caaff8a7b7dda3ca2ee6fbc6f44e10721eb5a229b7f49e4950c0cf2a81ded3eb9ac1342a295"
)
