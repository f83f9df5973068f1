from __future__ import annotations

import os
from pathlib import Path

import pytest
from worlds.bundles import signing_key, trust_and_keys
from worlds.device import DEVICE, say

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import OperatorError, SignatureError, StorageError
from aiotkit.core.records import Question
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.messages import MAX_LIFE_US, check_message, make_message, open_message, sign_message
from aiotkit.edge.operator import BYPASS, DONE, INBOX, OUTBOX, OperatorDesk, open_questions

S = 1_000_000
NOW = 1_700_000_000 * S
TRUST, RELEASE, OPERATOR, COLLECTOR = trust_and_keys()


def desk(state) -> OperatorDesk:
    return OperatorDesk(RealDisk(state), DEVICE, TRUST)


def test_a_signed_message_arrives_once(tmp_path):
    """It is believed, moved to done, and refused when it is put into the inbox again."""
    say(tmp_path, "override", NOW, action="run")
    (received,) = desk(tmp_path).poll(NOW)
    assert (received.message.kind, received.message.action) == ("override", "run")
    one = desk(tmp_path)
    one.finish(received)
    assert one.poll(NOW) == []
    assert len(list((tmp_path / DONE).iterdir())) == 1
    (tmp_path / INBOX / "again.json").write_bytes(received.envelope)
    for again in (one, desk(tmp_path)):
        (replayed,) = again.poll(NOW)
        assert (replayed.message, "seen before" in replayed.refusal) == (None, True)


REFUSED = {
    "another key": ({"key": signing_key("nobody")}, "found 0"),
    "the collector's key": ({"key": COLLECTOR}, "found 0"),
    "another device": ({"device": "pump-2"}, "expected pump-1; found pump-2"),
    "an ended one": ({"at_us": NOW - 7200 * S}, "ended 3600 s ago"),
    "one from the future": ({"at_us": NOW + 600 * S}, "600 s ahead"),
}


@pytest.mark.parametrize(("how", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_T8_a_message_that_must_not_be_believed_is_refused(tmp_path, how, words):
    """Wrong key, role, device or time: refused in words, removed when finished, never obeyed."""
    say(tmp_path, "override", **({"at_us": NOW, "action": "run"} | how))
    one = desk(tmp_path)
    (received,) = one.poll(NOW)
    assert received.message is None
    assert words in received.refusal
    one.finish(received)
    assert one.poll(NOW) == []
    assert not list((tmp_path / DONE).iterdir())


def test_G1_whatever_lies_in_the_inbox_is_judged(tmp_path):
    """Noise, nesting, a huge file, a folder, a foreign name: refused or ignored, and nothing is blocked."""
    one = desk(tmp_path)
    (tmp_path / INBOX / "a.json").write_bytes(b"\xff\x00")
    (tmp_path / INBOX / "b.json").write_bytes(b"[" * 10_000)
    (tmp_path / INBOX / "c.json").write_bytes(b"x" * (1 << 20))
    (tmp_path / INBOX / "d.json").mkdir()
    (tmp_path / INBOX / "e.txt").write_bytes(b"not for us")
    found = one.poll(NOW)
    assert [r.name for r in found] == ["a.json", "b.json", "c.json", "d.json"]
    assert all(r.message is None and r.refusal for r in found)
    for received in found:
        one.finish(received)
    say(tmp_path, "bypass", NOW, on=True)
    (good,) = one.poll(NOW)
    assert good.message is not None


def test_every_byte_of_a_message_counts():
    """Changing any byte of the envelope makes it worthless."""
    data = sign_message(make_message(DEVICE, "override", "anna", NOW, action="run"), OPERATOR)
    for i in range(0, len(data), 3):
        with pytest.raises((SignatureError, OperatorError)):
            open_message(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :], TRUST)


INCOMPLETE = [("answer", {"action": "run"}), ("override", {}), ("bypass", {}), ("nod", {})]


@pytest.mark.parametrize(("kind", "said"), INCOMPLETE)
def test_a_message_says_all_of_what_it_means(kind, said):
    """An answer without question, an override without action, an unknown kind cannot be made."""
    with pytest.raises(ValueError, match=kind):
        make_message(DEVICE, kind, "anna", NOW, **said)


def test_no_message_lives_longer_than_a_week():
    """A message asks to be believed for a bounded time."""
    with pytest.raises(ValueError, match="at most a week"):
        make_message(DEVICE, "bypass", "anna", NOW, life_s=MAX_LIFE_US / 1e6 + 1, on=True)
    check_message(make_message(DEVICE, "bypass", "anna", NOW, on=True), DEVICE, NOW, ())


def test_handled_messages_are_kept_until_they_end(tmp_path):
    """done/ holds what could still be replayed, and no more."""
    say(tmp_path, "override", NOW, action="run")
    one = desk(tmp_path)
    one.finish(one.poll(NOW)[0])
    one.forget(NOW)
    assert len(list((tmp_path / DONE).iterdir())) == 1
    one.forget(NOW + 3600 * S)
    assert not list((tmp_path / DONE).iterdir())


def test_G7_bypass_holds_over_a_restart(tmp_path):
    """On stays on, off stays off; a file that cannot be read means on."""
    one = desk(tmp_path)
    assert not one.bypass
    one.set_bypass(on=True, by="anna", now_us=NOW)
    assert desk(tmp_path).bypass
    one.set_bypass(on=False, by="anna", now_us=NOW)
    assert not desk(tmp_path).bypass
    (tmp_path / BYPASS).write_bytes(b"\0")
    assert desk(tmp_path).bypass


def test_questions_come_and_go(tmp_path):
    """The open question is one file with the possible answers; it goes when another or none is open."""
    one = desk(tmp_path)
    first = Question("pump-1/abc/2", "confirm", "stop", NOW, "strong vibration")
    assert one.publish(first, ["run", "stop"])
    assert not one.publish(first, ["run", "stop"])
    (shown,) = open_questions(RealDisk(tmp_path))
    assert (shown["id"], shown["actions"]) == ("pump-1/abc/2", ["run", "stop"])
    assert one.publish(Question("pump-1/abc/8", "ask", None, NOW, ""), ["run"])
    assert [q["id"] for q in open_questions(RealDisk(tmp_path))] == ["pump-1/abc/8"]
    assert not one.publish(None, [])
    assert list((tmp_path / OUTBOX).iterdir()) == []


def test_a_question_left_by_a_killed_agent_is_cleared(tmp_path):
    """The outbox shows what is open now, not what once was."""
    desk(tmp_path).publish(Question("pump-1/abc/2", "ask", None, NOW, ""), ["run"])
    desk(tmp_path).publish(Question("pump-1/abc/9", "ask", None, NOW, ""), ["run"])
    assert [q["id"] for q in open_questions(RealDisk(tmp_path))] == ["pump-1/abc/9"]


def test_a_message_that_cannot_be_moved_must_not_be_obeyed(tmp_path):
    """Finish raises when the disk refuses: the caller then leaves the message alone."""
    say(tmp_path, "override", NOW, action="run")
    one = desk(tmp_path)
    (received,) = one.poll(NOW)
    (tmp_path / INBOX / received.name).unlink()
    with pytest.raises(StorageError):
        one.finish(received)


IN_THE_INBOX = {
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("put", IN_THE_INBOX.values(), ids=IN_THE_INBOX.keys())
def test_T8_what_is_no_file_is_refused_without_waiting(tmp_path, put):
    """A pipe, a folder or a device in the inbox is refused once; a message beside it still arrives."""
    one = desk(tmp_path)
    put(tmp_path / INBOX / "a.json")
    say(tmp_path, "override", NOW, action="run")
    odd, good = one.poll(NOW)
    assert (odd.message, odd.refusal) == (None, "it is no regular file")
    assert good.message is not None
    one.finish(odd)
    assert [received.name for received in one.poll(NOW)] == [good.name]


def test_T8_a_name_that_utf8_cannot_carry_can_be_journaled(tmp_path):
    """A file with any name is judged, and what is said of it is text."""
    one = desk(tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path / INBOX) + b"/\xff\xfe.json")).write_bytes(b"{}")
    (odd,) = one.poll(NOW)
    assert odd.message is None
    assert b"udcff" in canonical_bytes({"why": odd.refusal, **odd.to_json()})
    one.finish(odd)
    assert one.poll(NOW) == []


def test_odd_names_among_handled_messages_are_passed_over(tmp_path):
    """A file somebody put into ``done`` stops nothing."""
    one = desk(tmp_path)
    (tmp_path / DONE / "²-x.json").write_bytes(b"")
    one.forget(NOW)
    one.end_checks(NOW)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"{}", b"[]", b"\xff", b" " * (1 << 17), None])
def test_G7_a_bypass_that_cannot_be_read_is_on(tmp_path, content):
    """Doubt moves nothing: damaged, deep or huge, or no file at all, the device starts in bypass."""
    desk(tmp_path)
    if content is None:
        os.mkfifo(tmp_path / BYPASS)
    else:
        (tmp_path / BYPASS).write_bytes(content)
    assert desk(tmp_path).bypass
