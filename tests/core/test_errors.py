"""Errors are part of the interface."""

from __future__ import annotations

import pytest

from aiotkit.core import errors
from aiotkit.core.errors import AiotkitError, did_you_mean

ALL = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, AiotkitError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda e: e.__name__)
def test_every_error_says_what_expected_found_and_what_to_do(kind):
    """A message names the thing, what was expected, what was found and the next step, in this order."""
    error = kind("the disk", expected="12 MB", found="3 MB", do="Free some space.")
    assert str(error) == "the disk; expected 12 MB; found 3 MB. Free some space."
    assert (error.what, error.expected, error.found, error.do) == (
        "the disk",
        "12 MB",
        "3 MB",
        "Free some space.",
    )


@pytest.mark.parametrize("kind", ALL, ids=lambda e: e.__name__)
def test_every_error_has_an_exit_code_a_scheduler_understands(kind):
    """1 = the answer is no, 2 = the input is wrong, 3 = the place is."""
    assert kind.exit_code in (1, 2, 3)


def test_a_message_without_details_is_the_thing_alone():
    """Nothing is said that is not known."""
    assert str(AiotkitError("no journal here")) == "no journal here"


def test_a_hint_is_given_only_when_something_is_close():
    """A wild guess would mislead more than it helps."""
    assert did_you_mean("stattes", ["states", "signals"]) == "did you mean 'states'?"
    assert did_you_mean("zebra", ["states", "signals"]) == ""
