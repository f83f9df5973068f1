"""What a device remembers of bundles' probations: the trial that runs, who passed, who failed. Format 1.

One sealed file beside the pointers (``slots/trials``), replaced as a whole. Without it every bundle is on
probation anew and none is refused: a device that has forgotten is careful, not stuck.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field, NonNegativeInt

from aiotkit.core.canonical import canonical_bytes
from aiotkit.core.errors import IntegrityError
from aiotkit.core.strict import Strict
from aiotkit.edge.pointers import Sha256, seal, unseal
from aiotkit.edge.probation import Trial

FORMAT = 1
MAX_BYTES = 1 << 16
MAX_WORDS = 400
_PASSED, _DENIED = 4, 16


class Denied(Strict):
    """A bundle that failed here, and why."""

    bundle: Sha256
    release_counter: NonNegativeInt
    why: str = Field(max_length=MAX_WORDS)


class Trials(Strict):
    """See the module. Older bundles than the newest few are below the floor, and forgotten here.

    >>> one = Denied(bundle="sha256:" + 64 * "0", release_counter=3, why="it raised")
    >>> Trials().deny(one).denial(one.bundle).why
    'it raised'
    >>> Trials().deny(one).readmit(one.bundle).denial(one.bundle) is None
    True
    """

    format: Literal[1] = 1
    trial: Trial | None = None
    passed: tuple[Sha256, ...] = ()
    denied: tuple[Denied, ...] = ()

    def of(self, bundle: str) -> Trial | None:
        """The trial that runs, if it is this bundle's."""
        return self.trial if self.trial is not None and self.trial.bundle == bundle else None

    def denial(self, bundle: str) -> Denied | None:
        """Why a bundle is not let in again, if it is not."""
        return next((one for one in self.denied if one.bundle == bundle), None)

    def on(self, trial: Trial) -> Trials:
        """With a trial as it stands now."""
        return self.model_copy(update={"trial": trial})

    def done(self, bundle: str) -> Trials:
        """With a bundle that has passed."""
        others = tuple(one for one in self.passed if one != bundle)
        return self.model_copy(update={"trial": None, "passed": (*others, bundle)[-_PASSED:]})

    def deny(self, one: Denied) -> Trials:
        """With a bundle that has failed, whatever it passed before."""
        denied = (*(d for d in self.denied if d.bundle != one.bundle), one)[-_DENIED:]
        passed = tuple(name for name in self.passed if name != one.bundle)
        return self.model_copy(update={"trial": None, "passed": passed, "denied": denied})

    def readmit(self, bundle: str) -> Trials:
        """With a bundle that may be tried again."""
        return self.model_copy(update={"denied": tuple(d for d in self.denied if d.bundle != bundle)})

    def encode(self) -> bytes:
        """The bytes of the file."""
        return seal(canonical_bytes(self.model_dump(mode="json")))


def decode_trials(data: bytes, name: str) -> Trials:
    """Read the file.

    Raises:
        IntegrityError: its own hash is wrong, or (with a right one) its content is none of format 1.
    """
    body = unseal(data, name, MAX_BYTES)
    try:
        return Trials.model_validate(json.loads(body))
    except (ValueError, RecursionError) as error:  # pydantic's too
        raise IntegrityError(f"{name} is no record of format {FORMAT}", found=str(error)) from error
