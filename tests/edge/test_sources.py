from __future__ import annotations

import io
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.errors import SourceError
from aiotkit.core.records import MAX_US
from aiotkit.edge.clocks import AGREEING, STANDING, PacketTimes
from aiotkit.edge.sources import (
    MAX_LINE,
    BadPacket,
    FileSource,
    Packet,
    PacketReader,
    PipeSource,
    Samples,
    Source,
    encode_packet,
    read_packet,
)

FIRST = Packet(
    5_000_000,
    {"vib": Samples(4_000_000, 64.0, np.arange(64, dtype=np.float32)), "a": Samples(1, 1.5, np.float32([2]))},
    (("oil", 4_500_000, 61.5),),
    (("load", 4_000_000, 0.5), ("mode", 4_000_000, "nan")),
)
SECOND = Packet(6_000_000)


def same(a: Packet, b: Packet) -> bool:
    return encode_packet(a) == encode_packet(b)


@contextmanager
def from_file(data: bytes, folder: Path) -> Iterator[Source]:
    (folder / "packets").write_bytes(data)
    source = FileSource(folder / "packets")
    yield source
    source.close()


@contextmanager
def from_pipe(data: bytes, folder: Path) -> Iterator[Source]:
    read, write = os.pipe()
    with os.fdopen(write, "wb") as out, os.fdopen(read, "rb") as incoming:
        sender = threading.Thread(target=lambda: (out.write(data), out.close()))  # a pipe holds little
        sender.start()
        yield PipeSource(incoming, io.BytesIO())
        sender.join(5)


SOURCES = {"file": from_file, "pipe": from_pipe}


def gives_every_packet_in_order(opened: Callable[[bytes], object], folder: Path) -> None:
    with opened(encode_packet(FIRST) + encode_packet(SECOND), folder) as source:
        assert same(source.next(5.0), FIRST)
        assert not source.ended
        assert same(source.next(5.0), SECOND)
        assert source.next(5.0) is None
        assert source.ended


def goes_on_after_a_bad_packet(opened: Callable[[bytes], object], folder: Path) -> None:
    bad = b'{"at_us":1,"samples":{},"points":"x","context":[],"bytes":4}\n\0\0\0\0'
    with opened(bad + encode_packet(SECOND), folder) as source:
        with pytest.raises(BadPacket, match="points and context: lists"):
            source.next(5.0)
        assert same(source.next(5.0), SECOND)


def says_when_it_ends_within_a_packet(opened: Callable[[bytes], object], folder: Path) -> None:
    with (
        opened(encode_packet(FIRST)[:-1], folder) as source,
        pytest.raises(SourceError, match="within a packet"),
    ):
        source.next(5.0)


def refuses_a_line_without_end(opened: Callable[[bytes], object], folder: Path) -> None:
    with opened(b"x" * (MAX_LINE + 9), folder) as source, pytest.raises(SourceError, match="no end of line"):
        source.next(5.0)


CHECKS = [
    gives_every_packet_in_order,
    goes_on_after_a_bad_packet,
    says_when_it_ends_within_a_packet,
    refuses_a_line_without_end,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
@pytest.mark.parametrize("opened", SOURCES.values(), ids=SOURCES.keys())
def test_every_source_keeps_the_promise(opened, check, tmp_path):
    """Files and pipes give the same packets, refuse the same ones, and go on behind a bad one."""
    check(opened, tmp_path)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_G1_any_bytes_are_refused_or_read_and_nothing_else(noise, step):
    """Noise between packets raises SourceError or nothing, however it is cut into pieces."""
    reader = PacketReader()
    data = encode_packet(FIRST) + noise
    for at in range(0, len(data), step):
        reader.feed(data[at : at + step])
        try:
            while reader.take() is not None:
                pass
        except SourceError as error:
            assert str(error)  # noqa: PT017 - either outcome is right; another exception is not


ODD = [
    ("NaN", "true"),
    ("Infinity", "null"),
    ('"12"', "[1]"),
    ("[]", "{}"),
    ("1e999", '"12"'),
]


@pytest.mark.parametrize(("point", "context"), ODD)
def test_G1_a_value_that_is_no_number_is_read_as_nan(point, context):
    """A wrongly typed value costs its own reading, not the packet."""
    values = f'"points":[["oil",9,{point}]],"context":[["load",9,{context}]]'
    line = f'{{"at_us":9,"samples":{{}},{values},"bytes":0}}\n'
    packet = read_packet(io.BytesIO(line.encode()))
    assert math.isnan(packet.points[0][2])
    value = packet.context[0][2]
    assert value == "12" if context == '"12"' else math.isnan(value)


HEAD = {"at_us": 9, "samples": {}, "points": [], "context": [], "bytes": 0}
WRONG = {
    "no JSON": (b"{", "not JSON"),
    "deep": (b"[" * 100_000, "not JSON"),
    "a list": (b"[]", "a JSON object"),
    "an unknown key": (json.dumps(HEAD | {"extra": 1}).encode(), "extra"),
    "a missing key": (json.dumps({"bytes": 0}).encode(), "at_us"),
    "a bad instant": (json.dumps(HEAD | {"at_us": -1}).encode(), "microseconds"),
    "a huge instant": (
        b'{"at_us":1' + b"0" * 400 + b',"samples":{},"points":[],"context":[],"bytes":0}',
        "microseconds",
    ),
    "count beyond bytes": (
        json.dumps(HEAD | {"samples": {"v": [1, 1.0, 5]}}).encode(),
        "values that are left",
    ),
    "rate zero": (json.dumps(HEAD | {"samples": {"v": [1, 0, 0]}}).encode(), "1e-6 to 1e9"),
    "bad samples": (json.dumps(HEAD | {"samples": {"v": 3}}).encode(), "first_us, rate_hz, count"),
    "a bad point": (json.dumps(HEAD | {"points": [["oil", 1]]}).encode(), "name, at_us, value"),
    "a nameless context": (json.dumps(HEAD | {"context": [[3, 1, 2]]}).encode(), "name, at_us, value"),
}


@pytest.mark.parametrize(("line", "words"), WRONG.values(), ids=WRONG.keys())
def test_G1_a_packet_of_another_shape_is_refused_in_words(line, words):
    """Every malformed header is a BadPacket that says what was expected."""
    with pytest.raises(BadPacket, match=words):
        read_packet(io.BytesIO(line + b"\n"))


@pytest.mark.parametrize("size", [-1, 1 << 40, True, 1.0, "4", None], ids=repr)
def test_G1_a_body_of_unknown_size_ends_the_stream(size):
    """When ``bytes`` cannot be believed the stream has ended: nobody knows where the next packet begins."""
    line = json.dumps(HEAD | {"bytes": size}).encode() + b"\n"
    reader = PacketReader()
    reader.feed(line)
    for take in (reader.take, lambda: read_packet(io.BytesIO(line))):
        with pytest.raises(SourceError, match="where the next packet begins") as caught:
            take()
        assert not isinstance(caught.value, BadPacket)
        assert caught.value.exit_code == 3


def test_G1_words_that_utf8_cannot_carry_are_unreadable_values():
    """Half a surrogate pair in a word is read as no number, one in a name is told escaped."""
    head = HEAD | {"context": [["mode", 9, "\ud800"]], "points": [["\udfff", 9, 1.0]]}
    packet = read_packet(io.BytesIO(json.dumps(head).encode() + b"\n"))
    assert math.isnan(packet.context[0][2])
    sent = read_packet(
        io.BytesIO(encode_packet(Packet(9, context=(("mode", 9, "\ud800"), ("load", 9, "ü")))))
    )
    assert math.isnan(sent.context[0][2])
    assert sent.context[1][2] == "ü"
    head = HEAD | {"samples": {"v\ud800": [1, 0, 0]}}
    with pytest.raises(BadPacket, match="rate_hz") as caught:
        read_packet(io.BytesIO(json.dumps(head).encode() + b"\n"))
    assert str(caught.value).encode()


def test_pipe_gives_credit_back():
    """After a packet a line {"done": at_us} goes to the sender; null for a refused one.

    What is not durable is said to be that.
    """
    read, write = os.pipe()
    out = io.BytesIO()
    with os.fdopen(read, "rb") as incoming:
        source = PipeSource(incoming, out)
        source.done(7)
        source.done(None)
        source.done(8, durable=False)
        os.close(write)
    assert out.getvalue() == b'{"done":7}\n{"done":null}\n{"done":8,"durable":false}\n'


def test_a_trickle_does_not_prolong_the_wait():
    """A sender that sends part of a packet does not hold the agent longer than it wants to wait."""
    read, write = os.pipe()
    with os.fdopen(read, "rb") as incoming, os.fdopen(write, "wb", buffering=0) as out:
        source = PipeSource(incoming, io.BytesIO())
        out.write(encode_packet(FIRST)[:40])
        started = time.monotonic()
        assert source.next(0.05) is None
        assert time.monotonic() - started < 1.0
        out.write(encode_packet(FIRST)[40:])
        assert same(source.next(1.0), FIRST)


def test_a_missing_file_is_named(tmp_path):
    """A source file that is not there is an error with its name."""
    with pytest.raises(SourceError, match="nowhere"):
        FileSource(tmp_path / "nowhere")


# -- which packets' times are believed

DAY = 86_400_000_000
NOW = 1_700_000_000_000_000


def judged(times: PacketTimes, *at_us: int, now_us: int = NOW) -> list[str]:
    return [times.judge(at, now_us).verdict for at in at_us]


@pytest.mark.parametrize("ahead_us", [8 * DAY, MAX_US - NOW])
def test_G2_one_packet_from_a_far_future_is_refused(ahead_us):
    """It leaves no trace: the packets behind it are taken as if it had never come."""
    times = PacketTimes(60.0, NOW, by_clock=False)
    assert judged(times, NOW + 1, NOW + ahead_us, NOW + 2) == ["take", "refuse", "take"]
    assert "ahead of the last packet" in times.judge(NOW + ahead_us, 0).why


@pytest.mark.parametrize("jump_us", [9 * DAY, 1000 * DAY, -9 * DAY, -1000 * DAY])
def test_G2_packets_that_agree_set_the_time_anew(jump_us):
    """Three in a row, each later than the one before, are the time now, forth and back."""
    times = PacketTimes(60.0, NOW, by_clock=False)
    later = [NOW + jump_us + i for i in range(5)]
    assert judged(times, *later) == ["refuse", "refuse", "anew", "take", "take"]
    assert times.last_us == later[-1]


@given(st.lists(st.integers(0, MAX_US), max_size=30), st.booleans())
def test_G2_no_past_mutes_a_device_for_good(garbage, by_clock):
    """Whatever came before, good packets are taken after three at the most, or are not far behind."""
    times = PacketTimes(60.0, None, by_clock=by_clock)
    for at_us in garbage:
        times.judge(at_us, NOW)
    verdicts = judged(times, *(NOW + i for i in range(1, AGREEING + 2)))
    assert verdicts[-1] == "take"
    assert times.last_us is not None
    assert times.last_us <= NOW + 7 * DAY


def test_G2_packets_that_disagree_are_no_time():
    """Random instants, the same instant again, or a good packet between: nothing is set anew."""
    times = PacketTimes(60.0, NOW, by_clock=False)
    far = NOW + 100 * DAY
    assert judged(times, far, far, far, far + 50 * DAY, far, NOW + 1, far + 1, far + 2) == [
        *["refuse"] * 5,
        "take",
        *["refuse"] * 2,
    ]


def test_G2_a_clock_of_its_own_knows_what_is_ahead():
    """More than 300 s ahead of the clock is refused however many agree; a long pause is none of it."""
    times = PacketTimes(60.0, NOW - 1000 * DAY, by_clock=True)
    ahead = [NOW + 301_000_000 + i for i in range(5)]
    assert judged(times, *ahead, NOW, NOW + 299_000_000) == [*["refuse"] * 5, "take", "take"]
    assert "ahead of the clock" in times.judge(ahead[0], NOW).why


def test_J9_what_was_believed_while_the_clock_was_wrong_is_given_up():
    """A last packet ahead of the clock itself, by more than the tolerance, gives way to three that agree."""
    times = PacketTimes(60.0, NOW + 3_600_000_000, by_clock=True)
    assert judged(times, NOW, NOW + 1, NOW + 2, NOW + 3) == ["refuse", "refuse", "anew", "take"]


def test_G2_packets_sent_twice_are_taken_and_told_when_there_is_no_end_of_them():
    """A little behind is no other time; but packet after packet without a new time is worth a word."""
    times = PacketTimes(60.0, NOW, by_clock=False)
    assert judged(times, *(NOW - 100 + i for i in range(STANDING - 1))) == ["take"] * (STANDING - 1)
    assert times.trouble == ""
    times.judge(NOW, 0)
    assert f"{STANDING} packets in a row" in times.trouble
    times.judge(NOW + 1, 0)
    assert times.trouble == ""
