"""Equal things have equal bytes."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.canonical import canonical_bytes, digest, plain, utf8_text

DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=20,
).filter(lambda d: "\\ud" not in json.dumps(d))


@given(DOCUMENTS)
def test_reading_the_canonical_form_and_writing_it_again_gives_the_same_bytes(document):
    """The form is a fixed point, so a digest survives any number of readers and writers."""
    once = canonical_bytes(document)
    assert canonical_bytes(json.loads(once)) == once


@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.integers(), min_size=2))
def test_the_order_of_keys_makes_no_difference(document):
    """Two writers that order keys differently agree on the digest."""
    turned = dict(reversed(document.items()))
    assert digest(canonical_bytes(turned)) == digest(canonical_bytes(document))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_comes_back_bit_by_bit(value):
    """No decimal is lost: the sign of zero and denormals included."""
    (read,) = json.loads(canonical_bytes([value]))
    assert math.copysign(1, read) == math.copysign(1, value)
    assert read == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_json_does_not_know_is_refused(value):
    """NaN and infinities never get into a document by accident."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_bytes({"x": value})


@pytest.mark.parametrize(("value", "name"), [(math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_plain_names_what_json_does_not_know(value, name):
    """Where such numbers may occur they are written as words that ``float`` reads back."""
    assert plain(value) == name
    assert str(float(plain(value))) == name


def test_the_digest_says_how_it_was_made():
    """A digest carries the name of its hash, so that another can follow."""
    assert digest(b"abc") == "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@given(st.text(st.characters(exclude_categories=())))
def test_any_text_can_be_made_one_that_utf8_carries(text):
    """Halves of surrogate pairs become escapes; text that UTF-8 can carry stays as it is."""
    said = utf8_text(text)
    assert canonical_bytes(said)
    assert (said == text) == (not any(0xD800 <= ord(letter) < 0xE000 for letter in text))
