"""What a bundle consists of and where it may run. Its canonical bytes are what is signed; format 1."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from aiotkit.bundle.document import parse_document
from aiotkit.core.canonical import canonical_bytes, digest
from aiotkit.core.errors import IntegrityError
from aiotkit.core.problems import ExplainedProblems
from aiotkit.core.strict import Strict

MAX_FILES = 64
MAX_BYTES = 256 << 20
#: what every bundle holds; more is allowed
REQUIRED = ("decision.json", "graph.onnx", "interface.json", "golden.json", "golden.bin")

Path_ = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}(/[a-z0-9][a-z0-9_.-]{0,63}){0,3}$")]
Version = Annotated[str, Field(pattern=r"^\d{1,5}\.\d{1,5}\.\d{1,5}$")]
Place = Annotated[str, Field(min_length=1, max_length=64)]
Places = Literal["any"] | Annotated[tuple[Place, ...], Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class File(Strict):
    """Digest and size (bytes) of one file."""

    sha256: Sha256
    size: NonNegativeInt


class DecisionRef(Strict):
    """The decision a bundle serves."""

    id: str = Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")
    revision: PositiveInt
    digest: Digest


class Manifest(Strict):
    """The table of contents. ``hardware``: names as ``platform.machine()`` gives them; ``site``: names.

    ``release_counter`` only grows from release to release of a decision; a device never goes below the
    highest it has passed. ``min_runtime`` is the oldest aiotkit that can run it.
    """

    format: Literal[1] = 1
    decision: DecisionRef
    release_counter: PositiveInt
    min_runtime: Version
    hardware: Places
    site: Places
    files: Mapping[Path_, File] = Field(max_length=MAX_FILES)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        found = [f"files.{name}: missing" for name in REQUIRED if name not in self.files]
        total = sum(file.size for file in self.files.values())
        if total > MAX_BYTES:
            found.append(f"files: {total} bytes in all, at most {MAX_BYTES} allowed")
        decision = self.files.get("decision.json")
        if decision is not None and f"sha256:{decision.sha256}" != self.decision.digest:
            found.append("decision.digest: not the digest of decision.json")
        if found:
            raise ExplainedProblems(found)
        return self

    def canonical(self) -> bytes:
        """The bytes of ``manifest.json``."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def digest(self) -> str:
        """The bundle's identity."""
        return digest(self.canonical())


def parse_manifest(data: bytes) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        IntegrityError: it is not a manifest of format 1, or not in its canonical byte form.
    """
    manifest = parse_document(data, Manifest, "manifest.json", IntegrityError)
    if manifest.canonical() != data:
        raise IntegrityError(
            "manifest.json", expected="canonical JSON", found="another byte form of the same"
        )
    return manifest


def version_key(version: str) -> tuple[int, int, int]:
    """Three numbers of a version; what follows them (a pre-release mark) counts as that release.

    >>> version_key("0.10.2") > version_key("0.9.9"), version_key("0.1.0.dev3")
    (True, (0, 1, 0))
    """
    found = re.match(r"^(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise ValueError(f"version {version!r} is not of the form 1.2.3")
    return int(found[1]), int(found[2]), int(found[3])
