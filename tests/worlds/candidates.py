"""Candidates for tests: the committed test bundle with made-up evidence, in an MLflow store."""

from __future__ import annotations

from pathlib import Path

from worlds.bundles import DECISION_ID, unsigned_bundle

from aiotkit.bundle.trust import Trust, make_trust
from aiotkit.release.evidence import Evidence, GateResult
from aiotkit.release.registry import Candidate, Registry, Version

NOW_US = 1_800_000_000_000_000


def evidence(bundle: str, *, refused: tuple[str, ...] = (), seed: int = 7) -> Evidence:
    """Evidence with two gates, of which the named ones were not passed."""
    unsigned = unsigned_bundle()
    gates = tuple(
        GateResult(name=name, passed=name not in refused, words="as it was measured")
        for name in ("beats_rule", "leaks")
    )
    return Evidence(
        decision=unsigned.manifest.decision, dataset="sha256:" + "0" * 64, family="lda", seed=seed,
        variant="float32", bundle=bundle, gates=gates,
    )  # fmt: skip


def candidate(counter: int = 1, *, refused: tuple[str, ...] = (), report: Path | None = None) -> Candidate:
    """The test bundle with this release counter."""
    unsigned = unsigned_bundle(counter)
    found = evidence(unsigned.digest, refused=refused)
    return Candidate(unsigned.archive(), found.canonical(), found.passed, report, "made for a test")


def registered(registry: Registry, counter: int = 1, *, refused: tuple[str, ...] = ()) -> Version:
    """The same, registered."""
    run = registry.record(DECISION_ID, f"try {counter}", (), pipeline="")
    return registry.register(candidate(counter, refused=refused), run)


def approval_trust(*keys: object, threshold: int = 1) -> Trust:
    """A trust document that names approval keys."""
    return make_trust({"approval": (keys, threshold)})  # type: ignore[dict-item]
