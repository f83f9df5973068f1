"""Approving and rejecting candidates: signed statements over digests, and what they are worth at release.

A statement says who decided what about exactly this bundle and this evidence, when and under which
conditions. It is signed by an approval key (trust role ``approval``) and names the statement before it, so
that none can be taken out of the middle (``release.chain``; that none was taken from the end only those can
tell who saw it: ``release.seen``). The MLflow tag ``aiot.approval`` shows it; the statement counts.

Without keys (single user mode) a statement is not signed: it says so, the tag says so, and whoever trusts
approval keys does not accept it. Who signs is an ``Approver``: a server that countersigns for the person
who is logged in is another one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Literal, Protocol

from pydantic import Field

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.manifest import DecisionRef
from aiotkit.bundle.sign import Envelope, open_envelope, parse_envelope, sign
from aiotkit.bundle.trust import Trust
from aiotkit.bundle.unsigned import read_unsigned
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import BundleError, DataError, SignatureError
from aiotkit.core.strict import Line, Strict, Text
from aiotkit.release.chain import heads, last
from aiotkit.release.evidence import parse_evidence
from aiotkit.release.registry import Registry, Version

APPROVAL_TYPE = "application/vnd.aiotkit.approval+json"
SINGLE_USER = "none: single user mode"
UNAUTHENTICATED = "UNAUTHENTICATED (single user mode: nobody proved who they are)"
UNVERIFIED = "signature NOT VERIFIED (no approval keys are trusted here)"
IN_FORCE = "it is in force all the same: devices keep it until another bundle is released"
Verdict = Literal["approved", "rejected"]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class ApprovalError(BundleError):
    """The answer is no: not approved, not by whom it must be, not this candidate, or not any more."""


class Conditions(Strict):
    """Under which an approval holds: until an instant (µs UTC), for a pilot group only."""

    expires_us: int | None = None
    pilot: Line | None = None


class Statement(Strict):
    """One decision about one candidate."""

    format: Literal[1] = 1
    decision: DecisionRef
    version: int = Field(ge=1)
    bundle: Digest
    evidence: Digest
    verdict: Verdict
    by: Line = Field(min_length=1)
    at_us: int
    note: Text = ""
    conditions: Conditions = Conditions()
    despite_gates: tuple[Line, ...] = ()
    authentication: Line
    previous: Digest | None = None
    beside: tuple[Digest, ...] = ()

    def canonical(self) -> bytes:
        """What is signed."""
        return canonical_bytes(self.model_dump(mode="json", exclude=None if self.beside else {"beside"}))

    @property
    def follows(self) -> tuple[str, ...]:
        """The statements that were the last ones when it was made: one, or several made at once."""
        return (*([self.previous] if self.previous is not None else []), *self.beside)

    @property
    def authenticated(self) -> bool:
        """Whether it claims to be signed; only ``standing`` tells whether it is."""
        return self.authentication != SINGLE_USER


class Approver(Protocol):
    """Who vouches for a statement: the holder of a key, nobody, or a server for the user logged in."""

    @property
    def authentication(self) -> str:
        """What the statement says of it."""
        ...

    def sign(self, payload: bytes) -> Envelope:
        """The statement in its envelope."""
        ...


@dataclass(frozen=True)
class KeyApprover:
    """The holder of an approval key, and others who sign the same statement."""

    key: SigningKey
    others: tuple[SigningKey, ...] = ()

    @property
    def authentication(self) -> str:
        """The keys' ids."""
        ids = [key.public.key_id for key in (self.key, *self.others)]
        return f"{'keys' if self.others else 'key'} {', '.join(ids)}"

    def sign(self, payload: bytes) -> Envelope:
        """Signed by all of them."""
        return sign(APPROVAL_TYPE, payload, [self.key, *self.others])


@dataclass(frozen=True)
class SingleUser:
    """Nobody: the one person on this machine says so, and nothing proves it."""

    authentication: str = SINGLE_USER

    def sign(self, payload: bytes) -> Envelope:
        """Not signed."""
        return Envelope(APPROVAL_TYPE, payload, ())


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants: the verdict, who they are, why, and under which conditions."""

    verdict: Verdict
    by: str
    note: str = ""
    conditions: Conditions = field(default_factory=Conditions)
    despite_gates: bool = False


@dataclass(frozen=True, slots=True)
class Standing:
    """What the statements about a candidate amount to. ``statement``: the newest; ``words``: why (not)."""

    approved: bool
    words: str
    statement: Statement | None = None
    digest: str = ""
    authenticated: bool = False


def decide(registry: Registry, version: Version, wish: Wish, approver: Approver, *, at_us: int) -> Statement:
    """State a verdict about a candidate and keep it with the version.

    Raises:
        IntegrityError: the files in the store are not those that were registered.
        ApprovalError: its gates refused it and ``despite_gates`` is not set, or no note says why.
        DataError: the approval would have expired already, or nobody is named.
    """
    bundle, evidence = registry.fetch(version)
    refused = tuple(gate.name for gate in parse_evidence(evidence).refused)
    _allowed(version, wish, refused, at_us)
    before = heads({name: statement_of(data) for name, data in registry.statements(version).items()})
    statement = Statement(
        decision=read_unsigned(bundle)[0].manifest.decision,
        version=version.number,
        bundle=version.bundle,
        evidence=version.evidence,
        verdict=wish.verdict,
        by=wish.by,
        at_us=at_us,
        note=wish.note,
        conditions=wish.conditions,
        despite_gates=refused if wish.verdict == "approved" else (),
        authentication=approver.authentication,
        previous=before[0] if before else None,
        beside=tuple(before[1:]),
    )
    data = approver.sign(statement.canonical()).to_bytes()
    registry.keep_statement(version, data, tag_words(statement, digest(data)))
    return statement


def _allowed(version: Version, wish: Wish, refused: Sequence[str], at_us: int) -> None:
    what = f"{version.decision_id} version {version.number}"
    if not wish.by.strip():
        raise DataError(f"{what}: nobody is named", do="Say who decides: --by NAME.")
    expires = wish.conditions.expires_us
    if expires is not None and expires <= at_us:
        raise DataError(f"{what}: the approval would have expired already", found=_instant(expires))
    if wish.verdict == "rejected" or not refused:
        return
    if not wish.despite_gates:
        raise ApprovalError(
            f"{what}: its gates refused it ({', '.join(refused)})",
            do="Look at its report; approve it nevertheless with --despite-gates and --note.",
        )
    if not wish.note.strip():
        raise ApprovalError(f"{what}: approving despite its gates needs a reason", do="Give --note.")


def tag_words(statement: Statement, statement_digest: str) -> str:
    """What the tag ``aiot.approval`` says: for people, with the statement's digest at its end."""
    words = f"{statement.verdict} by {statement.by} at {_instant(statement.at_us)}"
    if statement.despite_gates:
        words += f" DESPITE GATES {', '.join(statement.despite_gates)}"
    if not statement.authenticated:
        words += f" {UNAUTHENTICATED}"
    return f"{words} statement {statement_digest}"


def standing(
    version: Version, statements: Mapping[str, bytes], trust: Trust | None, *, now_us: int
) -> Standing:
    """What the statements kept with a version amount to now (pure).

    Approved is what the last statement of an unbroken chain, the one the tag names, approves: for exactly
    this bundle and evidence, not expired, and signed by the keys that ``trust`` gives the role
    ``approval``. Where nobody is given that role, every statement is taken at its word, and said to be
    unauthenticated or not verified. Any doubt is a no. What was released is not taken back by it, and the
    words say so.
    """
    found = _standing(version, statements, trust, now_us)
    if found.approved or not version.champion:
        return found
    return replace(found, words=f"{found.words}; {IN_FORCE}")


def _standing(
    version: Version, statements: Mapping[str, bytes], trust: Trust | None, now_us: int
) -> Standing:
    if not statements:
        return Standing(approved=False, words="nobody has approved it")
    try:
        said = {name: statement_of(data) for name, data in statements.items()}
        name = last(said)
        statement, envelope = said[name], parse_envelope(statements[name], "approval")
        signers = _signers(envelope, trust)
    except BundleError as error:
        return Standing(approved=False, words=str(error).rstrip("."))
    problem = _problem(version, statement, name, now_us)
    doubt = UNVERIFIED if statement.authenticated else UNAUTHENTICATED
    words = f"approved by {statement.by}, {f'signed by {signers}' if signers else doubt}"
    words += f" at {_instant(statement.at_us)}{_conditions(statement)}"
    return Standing(not problem, problem or words, statement, name, bool(signers))


def _conditions(statement: Statement) -> str:
    """What an approval was given in spite of, and for whom and how long it holds."""
    words, conditions = "", statement.conditions
    if statement.despite_gates:
        words += f" DESPITE GATES {', '.join(statement.despite_gates)} ({statement.note})"
    words += "" if conditions.pilot is None else f", for the pilot group '{conditions.pilot}' alone"
    return words + ("" if conditions.expires_us is None else f", until {_instant(conditions.expires_us)}")


def require_approval(registry: Registry, version: Version, trust: Trust | None, *, now_us: int) -> Standing:
    """``standing``, or an error where it is not approved.

    Raises:
        ApprovalError: saying why not.
    """
    found = standing(version, registry.statements(version), trust, now_us=now_us)
    if not found.approved:
        key = " --key FILE" if trust is not None and "approval" in trust.roles else ""
        raise ApprovalError(
            f"{version.decision_id} version {version.number} may not be released",
            found=found.words,
            do="Whoever may approve it says so with: "
            f"aiotkit approve {version.decision_id} --version {version.number}{key}.",
        )
    return found


def statement_of(data: bytes) -> Statement:
    """The statement in an envelope, unverified.

    Raises:
        BundleError: it is none.
    """
    return _parse(parse_envelope(data, "approval").payload)


def _parse(payload: bytes) -> Statement:
    statement = parse_document(payload, Statement, "approval statement", ApprovalError)
    if statement.canonical() != payload:
        raise ApprovalError("approval statement", expected="canonical JSON", found="another byte form")
    return statement


def _signers(envelope: Envelope, trust: Trust | None) -> str:
    """The trusted keys that signed it; '' where nobody is trusted to; an error where they are not enough."""
    if trust is None or "approval" not in trust.roles:
        return ""
    statement, needed = _parse(envelope.payload), trust.role("approval")
    what = f"the last statement ({statement.verdict} by {statement.by}) is"
    holders = ", ".join(f"{trust.keys[k].comment or 'key'} {k[:12]}…" for k in needed.key_ids)
    do = f"Nothing is released until a newer one is signed by {needed.threshold} of: {holders}."
    if not statement.authenticated:
        raise SignatureError(f"{what} not signed, but trust.json names approval keys", do=do)
    signers = [signature.key_id for signature in envelope.signatures]
    if signers and not set(signers) & set(needed.key_ids):
        raise SignatureError(
            f"{what} signed by key {', '.join(f'{k[:12]}…' for k in signers)}",
            expected="a key to which trust.json gives the role 'approval'",
            do=do,
        )
    open_envelope(envelope, trust, "approval", APPROVAL_TYPE)
    mine = [k for k in dict.fromkeys(signers) if k in needed.key_ids]
    return ", ".join(f"{trust.keys[k].comment or 'key'} {k[:12]}…" for k in mine)


def _problem(version: Version, statement: Statement, name: str, now_us: int) -> str:
    """Why the newest statement does not release this version ('' = it does)."""
    if (statement.bundle, statement.evidence) != (version.bundle, version.evidence):
        return "the statement is about another bundle or other evidence"
    if not version.approval.endswith(f" statement {name}"):
        return "the tag aiot.approval names another statement: one was removed, or the tag was changed"
    if statement.verdict == "rejected":
        reason = statement.note or "no reason given"
        return f"rejected by {statement.by} at {_instant(statement.at_us)}: {reason}"
    expires = statement.conditions.expires_us
    if expires is not None and not now_us < expires:
        return f"the approval expired at {_instant(expires)}"
    return ""


def _instant(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
