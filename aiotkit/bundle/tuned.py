"""``policy.json``: what training measured about the policy, beside the decision file that people wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.decision import Decision
from aiotkit.core.strict import Money, Strict

POLICY_FILE = "policy.json"


class Tuned(Strict):
    """``margin``: see ``core.decision.Policy``; in the decision's currency."""

    format: Literal[1] = 1
    margin: Annotated[Money, Field(ge=0)] = 0.0

    def canonical(self) -> bytes:
        """The bytes of ``policy.json``."""
        return canonical_bytes(self.model_dump(mode="json"))


def tuned(decision: Decision, margin: float) -> Decision:
    """The decision as it is taken with a margin; the larger of this and its own counts.

    For judging and deciding only: its digest is no longer that of the file people wrote.
    """
    policy = decision.policy.model_copy(update={"margin": max(margin, decision.policy.margin)})
    return decision.model_copy(update={"policy": policy})


def with_policy(decision: Decision, files: Mapping[str, bytes]) -> Decision:
    """The decision with its bundle's ``policy.json``, where there is one.

    Raises:
        BundleError: the file is not of format 1.
    """
    if POLICY_FILE not in files:
        return decision
    return tuned(decision, parse_document(files[POLICY_FILE], Tuned, POLICY_FILE).margin)
