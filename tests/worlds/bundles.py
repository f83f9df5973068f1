"""Signed bundles for tests, made from ``tests/data/bearing`` without torch.

``python tests/worlds/bundles.py`` builds those files again from ``decision.yaml`` (needs the workbench).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from aiotkit.bundle.golden import golden_files
from aiotkit.bundle.keys import SigningKey
from aiotkit.bundle.trust import Trust, make_trust
from aiotkit.bundle.unsigned import Places, Unsigned, make_unsigned
from aiotkit.bundle.verify import Expectation
from aiotkit.core.decision import Decision, parse_decision
from aiotkit.release.cases import golden_cases

DATA = Path(__file__).parent.parent / "data" / "bearing"
SITE = "hall-1"
HARDWARE = "x86_64"
DECISION_ID = "bearing-test"


def signing_key(name: str) -> SigningKey:
    """The same key for the same name, in every process."""
    return SigningKey.from_seed(name.encode().ljust(32, b".")[:32])


def trust_and_keys() -> tuple[Trust, list[SigningKey], SigningKey, SigningKey]:
    """(trust, the two release keys, of which both must sign, operator key, collector key)."""
    release = [signing_key("release one"), signing_key("release two")]
    operator, collector = signing_key("operator"), signing_key("collector")
    trust = make_trust(
        {
            "release": ([key.public for key in release], 2),
            "operator": ([operator.public], 1),
            "collector": ([collector.public], 1),
        }
    )
    return trust, release, operator, collector


def expectation(**changes: Any) -> Expectation:
    """What a device of the test world expects; fields can be changed by name."""
    given = {"decision_id": DECISION_ID, "hardware": HARDWARE, "site": SITE, "runtime": "0.1.0", "floor": 0}
    return Expectation(**(given | changes))


@cache
def _committed() -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(DATA.iterdir()) if p.suffix != ".yaml"}


def bundle_files(*, small: bool = False, **overrides: Any) -> dict[str, bytes]:
    """The files of the test bundle.

    Args:
        small: only a few golden cases, so that the whole stays under 64 kB.
        overrides: top-level keys of the decision file put in place of its own, for example
            ``rule=[{"otherwise": "run"}]``. They may use the features that the graph has, no others;
            golden cases are made again.
    """
    files = dict(_committed())
    if not (small or overrides):
        return files
    decision = decision_of(**overrides)
    files["decision.json"] = decision.canonical()
    cases = golden_cases(decision, 16)
    return files | golden_files(files, cases[:5] if small else cases)


def decision_of(**overrides: Any) -> Decision:
    """The decision of the test bundle, with top-level keys replaced."""
    return parse_decision(json.loads(_committed()["decision.json"]) | overrides)


def unsigned_bundle(
    release_counter: int = 1,
    *,
    site: Places | None = None,
    hardware: Places = "any",
    small: bool = False,
    **overrides: Any,
) -> Unsigned:
    """The test bundle before signing; see ``bundle_files`` for ``small`` and ``overrides``."""
    files = bundle_files(small=small, **overrides)
    decision = decision_of(**overrides)
    return make_unsigned(decision, files, release_counter=release_counter, hardware=hardware, site=site)


def signed_archive(
    release_counter: int = 1,
    *,
    site: Places | None = None,
    hardware: Places = "any",
    keys: Iterable[SigningKey] | None = None,
    small: bool = False,
    **overrides: Any,
) -> bytes:
    """The test bundle's archive, signed by both release keys unless ``keys`` says otherwise."""
    keys = trust_and_keys()[1] if keys is None else keys
    bundle = unsigned_bundle(release_counter, site=site, hardware=hardware, small=small, **overrides)
    return bundle.archive(keys)


def rebuild() -> Unsigned:
    """Build the test bundle from its decision file, as its committed files were built."""
    import yaml

    from aiotkit.release.bundle import build_bundle

    document = yaml.safe_load((DATA / "decision.yaml").read_text(encoding="utf-8"))
    return build_bundle(parse_decision(document, "decision.yaml"), release_counter=1)


if __name__ == "__main__":
    for path, data in rebuild().files.items():
        (DATA / path).write_bytes(data)
