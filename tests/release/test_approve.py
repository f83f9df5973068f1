"""Approvals are statements about digests: who may make them, and what they are worth at release."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mlflow")
pytestmark = [pytest.mark.desk, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

from worlds.bundles import DECISION_ID, signing_key  # noqa: E402
from worlds.candidates import NOW_US, approval_trust, registered  # noqa: E402

from aiotkit.bundle.sign import OPERATOR_TYPE, open_envelope, parse_envelope, sign  # noqa: E402
from aiotkit.core.canonical import digest  # noqa: E402
from aiotkit.core.errors import BundleError, DataError, SignatureError  # noqa: E402
from aiotkit.release.approve import (  # noqa: E402
    APPROVAL_TYPE,
    UNAUTHENTICATED,
    ApprovalError,
    Approver,
    Conditions,
    KeyApprover,
    SingleUser,
    Standing,
    Wish,
    decide,
    require_approval,
    standing,
    statement_of,
)
from aiotkit.release.registry import Registry, Version  # noqa: E402
from aiotkit.release.seen import check_seen  # noqa: E402
from aiotkit.release.store import store_uri  # noqa: E402

LEAD, OTHER = signing_key("lead"), signing_key("other")
TRUST = approval_trust(LEAD.public)
APPROVE, REJECT = Wish("approved", "Ann", "looks right"), Wish("rejected", "Ann", "smells")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two candidates; gates refused the second. Copied for each test."""
    folder = tmp_path_factory.mktemp("made") / "store"
    registry = Registry(store_uri(folder))
    registered(registry, 1)
    registered(registry, 2, refused=("leaks", "beats_rule"))
    return folder


class Desk:
    """One decision's newest passing candidate in a store of its own, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.registry = folder, Registry(store_uri(folder))
        self.now_us = NOW_US

    def version(self, number: int = 1) -> Version:
        return self.registry.version(DECISION_ID, number)

    def decide(self, wish: Wish = APPROVE, by: Approver | None = None, number: int = 1) -> Any:
        self.now_us += 1_000_000
        approver = by or KeyApprover(LEAD)
        return decide(self.registry, self.version(number), wish, approver, at_us=self.now_us)

    def standing(self, trust: Any = TRUST, number: int = 1) -> Standing:
        version = self.version(number)
        return standing(version, self.registry.statements(version), trust, now_us=self.now_us)

    def keep(self, data: bytes, number: int = 1) -> None:
        """Put a statement into the store as an attacker could."""
        self.registry.keep_statement(self.version(number), data, f"approved statement {digest(data)}")


@pytest.fixture
def desk(made: Path, tmp_path: Path) -> Desk:
    """A fresh copy, with files of its own."""
    return Desk(Path(shutil.copytree(made, tmp_path / "store")))


def test_what_the_lead_signed_may_be_released(desk: Desk) -> None:
    """A signed approval of exactly these digests stands, says by whom, and the tag shows it."""
    assert desk.standing().words == "nobody has approved it"
    statement = desk.decide()
    found = desk.standing()
    assert (found.approved, found.authenticated) == (True, True)
    key = f"{LEAD.public.key_id[:12]}…"
    assert found.words == f"approved by Ann, signed by key {key} at 2027-01-15 08:00:01 UTC"
    assert statement.authentication == f"key {LEAD.public.key_id}"
    tag = desk.version().approval
    assert tag.startswith("approved by Ann at 2027-01-15")
    assert tag.endswith(found.digest)
    assert require_approval(desk.registry, desk.version(), TRUST, now_us=desk.now_us) == found


def test_an_approval_by_another_key_is_worth_nothing(desk: Desk) -> None:
    """A key that the trust file does not give the role is refused, and named beside those that count."""
    desk.decide(by=KeyApprover(OTHER))
    found = desk.standing()
    assert not found.approved
    wrong, right = (f"{key.public.key_id[:12]}…" for key in (OTHER, LEAD))
    assert f"(approved by Ann) is signed by key {wrong}; expected a key to which trust.json" in found.words
    assert found.words.endswith(f"until a newer one is signed by 1 of: key {right}")
    with pytest.raises(ApprovalError, match=r"version 1 may not be released; .*--version 1 --key FILE\.$"):
        require_approval(desk.registry, desk.version(), TRUST, now_us=desk.now_us)


@pytest.mark.parametrize("by", [SingleUser(), KeyApprover(OTHER)], ids=["unsigned", "another key"])
def test_a_rejection_that_proves_nothing_stops_a_release_and_says_how_to_go_on(
    desk: Desk, by: Approver
) -> None:
    """Doubt releases nothing: the words say whose statement it is, and whose newer one lifts it."""
    desk.decide()
    desk.decide(REJECT, by=by)
    found = desk.standing()
    assert not found.approved
    assert "the last statement (rejected by Ann) is" in found.words
    assert "Nothing is released until a newer one is signed by 1 of: key" in found.words
    desk.decide()
    assert desk.standing().approved


def test_rejecting_what_is_in_force_says_that_devices_keep_it(desk: Desk) -> None:
    """A statement takes nothing off a device, and its words do not let anybody think so."""
    desk.decide()
    desk.decide(REJECT)
    assert "in force" not in desk.standing().words
    desk.registry.set_champion(desk.version())
    assert desk.standing().words.endswith(
        "smells; it is in force all the same: devices keep it until another bundle is released"
    )
    desk.decide()
    assert desk.standing().words.endswith("at 2027-01-15 08:00:03 UTC")


def test_two_leads_where_two_are_needed(desk: Desk) -> None:
    """A threshold of two is not reached by one signature."""
    trust = approval_trust(LEAD.public, OTHER.public, threshold=2)
    desk.decide()
    assert "2 of 2 trusted keys; found 1" in desk.standing(trust).words
    statement = desk.decide(by=KeyApprover(LEAD, (OTHER,)))
    assert statement.authentication == f"keys {LEAD.public.key_id}, {OTHER.public.key_id}"
    assert desk.standing(trust).approved
    ids = [f"key {key.public.key_id[:12]}…" for key in (LEAD, OTHER)]
    assert all(name in desk.standing(trust).words for name in ids)


def test_an_approval_of_other_digests_is_worth_nothing(desk: Desk) -> None:
    """A valid statement about another candidate, moved here, does not release this one."""
    desk.decide(dataclasses.replace(APPROVE, despite_gates=True), number=2)
    (data,) = desk.registry.statements(desk.version(2)).values()
    desk.keep(data)
    assert desk.standing().words == "the statement is about another bundle or other evidence"


def test_a_later_rejection_wins(desk: Desk) -> None:
    """Revocation is a statement like any other, and so is approving again."""
    desk.decide()
    desk.decide(REJECT)
    assert "rejected by Ann" in desk.standing().words
    assert "smells" in desk.standing().words
    assert not desk.standing().approved
    desk.decide()
    assert desk.standing().approved


def test_a_removed_rejection_is_noticed(desk: Desk) -> None:
    """The tag names the newest statement, and each names the one before it: none can be taken away."""
    desk.decide()
    desk.decide(REJECT)
    last = digest(desk.registry.statements(desk.version())[desk.standing().digest])
    first = next(d for d in desk.registry.statements(desk.version()) if d != last)
    aside = desk.folder / "aside"
    _file(desk, last).rename(aside)
    assert "the tag aiot.approval names another statement" in desk.standing().words
    aside.rename(_file(desk, last, there=False))
    _file(desk, first).unlink()
    assert "one that others build on is gone" in desk.standing().words


def test_of_two_statements_made_at_once_none_counts_until_a_newer_one(desk: Desk) -> None:
    """Whoever put the second there cannot choose which counts; the next statement names both before it."""
    statement = desk.decide(REJECT)
    other = statement.model_copy(update={"verdict": "approved", "at_us": NOW_US + 900_000})
    desk.keep(sign(APPROVAL_TYPE, other.canonical(), [LEAD]).to_bytes())
    assert desk.standing().words.startswith(
        "approval statements: 2 were made at once. Approve or reject it once"
    )
    newer = desk.decide()
    assert len(newer.follows) == 2
    assert desk.standing().approved
    before = desk.standing().digest
    assert desk.decide(REJECT).follows == (before,)


def test_an_approval_ends_when_it_said(desk: Desk) -> None:
    """One that has expired does not release, and one that would have expired is not made."""
    desk.decide(
        dataclasses.replace(APPROVE, conditions=Conditions(expires_us=NOW_US + 60_000_000, pilot="hall 1"))
    )
    assert desk.standing().approved
    desk.now_us = NOW_US + 60_000_000
    assert desk.standing().words == "the approval expired at 2027-01-15 08:01:00 UTC"
    with pytest.raises(DataError, match="would have expired already"):
        desk.decide(dataclasses.replace(APPROVE, conditions=Conditions(expires_us=NOW_US)))


def test_single_user_mode_says_that_it_proves_nothing(desk: Desk) -> None:
    """Statement and tag say unauthenticated; it stands only where nobody was given the role."""
    statement = desk.decide(by=SingleUser())
    assert statement.authentication == "none: single user mode"
    assert UNAUTHENTICATED in desk.version().approval
    nobody = desk.standing(None)
    assert (nobody.approved, nobody.authenticated) == (True, False)
    assert UNAUTHENTICATED in nobody.words
    assert not desk.standing(TRUST).approved
    assert "not signed, but trust.json names approval keys" in desk.standing(TRUST).words


def test_gates_are_overruled_only_on_purpose_and_with_a_reason(desk: Desk) -> None:
    """A refused candidate needs --despite-gates and a note; the statement and the tag name the gates."""
    with pytest.raises(ApprovalError, match=r"refused it \(beats_rule, leaks\).*--despite-gates"):
        desk.decide(number=2)
    with pytest.raises(ApprovalError, match="needs a reason"):
        desk.decide(Wish("approved", "Ann", " ", despite_gates=True), number=2)
    assert desk.registry.statements(desk.version(2)) == {}
    assert desk.version(2).approval == ""
    statement = desk.decide(dataclasses.replace(APPROVE, despite_gates=True), number=2)
    assert statement.despite_gates == ("beats_rule", "leaks")
    assert "DESPITE GATES beats_rule, leaks" in desk.version(2).approval
    assert desk.standing(number=2).approved


def test_the_evidence_says_what_gates_said_not_the_tag(desk: Desk) -> None:
    """Writing 'passed' into a tag opens nothing."""
    desk.registry._client.set_model_version_tag(DECISION_ID, "2", "aiot.gates", "passed")
    with pytest.raises(ApprovalError, match="its gates refused it"):
        desk.decide(number=2)


def test_files_that_differ_from_their_digests_cannot_be_approved(desk: Desk) -> None:
    """What would be approved is fetched and checked first."""
    desk.registry._client.set_model_version_tag(
        DECISION_ID, "1", "aiot.evidence_digest", "sha256:" + "0" * 64
    )
    with pytest.raises(BundleError, match="its evidence is not what was registered"):
        desk.decide()


def test_a_statement_that_was_altered_is_refused(desk: Desk) -> None:
    """The signature covers every word of it."""
    desk.decide()
    (data,) = desk.registry.statements(desk.version()).values()
    envelope = parse_envelope(data)
    altered = dataclasses.replace(envelope, payload=envelope.payload.replace(b"Ann", b"Bob")).to_bytes()
    for path in _kept(desk):
        path.unlink()
    desk.keep(altered)
    assert "does not fit what is signed" in desk.standing().words
    with pytest.raises(SignatureError, match="payload type"):
        open_envelope(parse_envelope(data), TRUST, "approval", OPERATOR_TYPE)


def test_what_was_overruled_and_for_whom_is_told(desk: Desk) -> None:
    """An approval despite gates, or for a pilot group, does not look like any other."""
    conditions = Conditions(expires_us=NOW_US + 60_000_000, pilot="hall 1")
    wish = Wish("approved", "Ann", "one week only", conditions, despite_gates=True)
    desk.decide(wish, number=2)
    words = desk.standing(number=2).words
    assert " DESPITE GATES " in words
    assert "(one week only), for the pilot group 'hall 1' alone, until 2027-01-15 08:01:00 UTC" in words


def test_a_statement_that_is_torn_is_named_and_a_stray_file_is_none(desk: Desk) -> None:
    """Only what is called as statements are is read, and it must be what its name says."""
    desk.decide()
    (path,) = _kept(desk)
    path.with_name("notes.txt").write_text("hello")
    assert desk.standing().approved
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(BundleError, match=rf"statement {path.name}; expected the bytes that its name says"):
        desk.standing()
    path.unlink()
    assert not desk.standing().approved
    desk.decide()
    assert desk.standing().approved


def test_a_statement_that_was_seen_here_may_not_be_gone(desk: Desk, tmp_path: Path) -> None:
    """The end of a chain can be cut off, tag and all: who saw it notices."""
    desk.decide()
    approved = desk.version().approval
    desk.decide(REJECT)
    version = desk.version()
    check_seen(tmp_path / "work", version, desk.registry.statements(version))
    newest = max(_kept(desk), key=lambda p: statement_of(p.read_bytes()).at_us)
    newest.unlink()
    desk.registry._client.set_model_version_tag(DECISION_ID, "1", "aiot.approval", approved)
    assert desk.standing().approved  # nothing in the store shows it
    with pytest.raises(ApprovalError, match="of its statements 1 are gone that were seen here"):
        check_seen(tmp_path / "work", desk.version(), desk.registry.statements(desk.version()))
    check_seen(tmp_path / "elsewhere", desk.version(), desk.registry.statements(desk.version()))
    (tmp_path / "work/approvals" / f"{DECISION_ID}.json").write_text("[]")
    with pytest.raises(ApprovalError, match="not what was noted of approvals"):
        check_seen(tmp_path / "work", desk.version(), ())


def test_a_copy_of_a_store_has_statements_of_its_own(desk: Desk, tmp_path: Path) -> None:
    """MLflow's paths are absolute: a copy must not write into, nor read from, where it was copied."""
    desk.decide()
    copy = Desk(Path(shutil.copytree(desk.folder, tmp_path / "copy")))
    copy.decide(REJECT)
    assert (desk.standing().approved, copy.standing().approved) == (True, False)
    moved = Desk(desk.folder.rename(tmp_path / "moved"))
    assert moved.standing().approved
    assert moved.registry.intact(moved.version())


def test_somebody_must_be_named(desk: Desk) -> None:
    """An approval by nobody is none."""
    with pytest.raises(DataError, match="nobody is named"):
        desk.decide(Wish("approved", "  "))


def _kept(desk: Desk) -> list[Path]:
    return list(next(desk.folder.rglob(f"{desk.version().run_id}/artifacts/approvals")).iterdir())


def _file(desk: Desk, name: str, *, there: bool = True) -> Path:
    path = _kept(desk)[0].with_name(f"{name.removeprefix('sha256:')}.dsse.json")
    assert path.exists() is there
    return path
