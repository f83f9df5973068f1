"""Whom to believe for what: keys, and how many of which keys a role needs.

The document (``trust.json``) is put on a device when it is commissioned and passed in from there; it is
never taken from a bundle or from a folder the network can write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.bundle.keys import PublicKey
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import SignatureError
from aiotkit.core.problems import ExplainedProblems
from aiotkit.core.strict import Strict

Role = Literal["release", "operator", "collector", "approval"]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class TrustedKey(Strict):
    """A public key, written out."""

    scheme: Literal["ed25519"] = "ed25519"
    public: str = Field(pattern=r"^[0-9a-f]{64}$")
    comment: str = Field(default="", max_length=200)

    @property
    def key(self) -> PublicKey:
        """The key itself."""
        return PublicKey(bytes.fromhex(self.public))


class RoleKeys(Strict):
    """Whose signatures count for a role, and how many different ones are needed."""

    key_ids: tuple[KeyId, ...] = Field(min_length=1)
    threshold: PositiveInt = 1


class Trust(Strict):
    """The keys that are known and what each may sign."""

    format: Literal[1] = 1
    version: PositiveInt = 1
    keys: Mapping[KeyId, TrustedKey]
    roles: Mapping[Role, RoleKeys] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        found = [
            f"keys.{key_id[:12]}…: the id is not the sha256 of the key; expected {trusted.key.key_id}"
            for key_id, trusted in self.keys.items()
            if trusted.key.key_id != key_id
        ]
        for role, needed in self.roles.items():
            found += [
                f"roles.{role}: unknown key {key_id[:12]}…; add it to 'keys'"
                for key_id in needed.key_ids
                if key_id not in self.keys
            ]
            distinct = len(set(needed.key_ids))
            if distinct != len(needed.key_ids):
                found.append(f"roles.{role}: a key is listed twice")
            if needed.threshold > distinct:
                found.append(
                    f"roles.{role}: threshold {needed.threshold} can never be reached by {distinct} keys"
                )
        if found:
            raise ExplainedProblems(found)
        return self

    def canonical(self) -> bytes:
        """The bytes of ``trust.json``."""
        return canonical_bytes(self.model_dump(mode="json"))

    def role(self, role: Role) -> RoleKeys:
        """What a role needs.

        Raises:
            SignatureError: nobody is trusted for it.
        """
        if role not in self.roles:
            raise SignatureError(
                f"trust.json names no keys for the role '{role}'",
                found=f"roles {sorted(self.roles)}",
                do="Write one with: aiotkit keys trust.",
            )
        return self.roles[role]


def parse_trust(data: bytes) -> Trust:
    """Read ``trust.json``.

    Raises:
        SignatureError: unknown keys in a role, a threshold out of reach, a key id that is not its key's,
            or anything else wrong, all listed.
    """
    return parse_document(data, Trust, "trust.json", SignatureError)


def make_trust(
    roles: Mapping[Role, tuple[Iterable[PublicKey], int]],
    *,
    version: int = 1,
    comments: Mapping[str, str] | None = None,
) -> Trust:
    """A trust document from public keys: role -> (keys, threshold).

    Raises:
        SignatureError: no keys at all, a key listed twice, or a threshold out of reach.
    """
    listed = {role: tuple(keys) for role, (keys, _) in roles.items()}
    comments = comments or {}
    every = {key.key_id: key for keys in listed.values() for key in keys}
    document = {
        "format": 1,
        "version": version,
        "keys": {
            i: {"scheme": "ed25519", "public": key.raw.hex(), "comment": comments.get(i, "")}
            for i, key in every.items()
        },
        "roles": {
            role: {"key_ids": [k.key_id for k in listed[role]], "threshold": threshold}
            for role, (_, threshold) in roles.items()
        },
    }
    return parse_trust(canonical_bytes(document))
