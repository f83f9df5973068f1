from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from worlds.bundles import decision_of

from aiotkit.core.decision import Decision
from aiotkit.edge.sources import Packet, Samples
from aiotkit.edge.windows import STUCK_SAMPLES, Assembler, Gathered

S = 1_000_000
T0 = 1_700_000_000 * S
RATE = 100.0


def decision(*, length_s: float = 1.0, every_s: float = 1.0, bad: float = 0.0, **signals: Any) -> Decision:
    regular = {"unit": "mm/s", "sampling": {"kind": "regular", "rate_hz": RATE}, "range": [-1e6, 1e6]}
    return decision_of(
        signals={"vib": regular, **signals},
        window={"length_s": length_s, "every_s": every_s, "max_bad_share": bad},
        history={},
        rule=[{"otherwise": "run"}],
        gates=[],
    )


def piece(start_s: float, length_s: float, *, rate: float = RATE, values: Any = None) -> Samples:
    n = round(length_s * rate)
    first = T0 + round(start_s * S)
    ramp = np.arange(round(start_s * rate), round(start_s * rate) + n, dtype=np.float32)
    return Samples(first, rate, ramp if values is None else np.asarray(values, dtype=np.float32))


def send(assembler: Assembler, at_s: float, *pieces: Samples, **more: Any) -> list[Gathered]:
    samples = {f"{name}": one for name, one in zip(("vib", "temp"), pieces, strict=False)}
    return assembler.feed(Packet(T0 + round(at_s * S), samples, **more))


def ends(gathered: list[Gathered]) -> list[float]:
    return [(g.end_us - T0) / S for g in gathered]


def test_a_stream_gives_a_window_at_every_due_time_whatever_the_packets():
    """Windows end every_s apart, hold exactly their samples, and do not depend on how packets are cut."""
    for step in (0.1, 0.3, 1.0, 2.5):
        assembler = Assembler(decision())
        found = []
        for k in range(round(10 / step)):
            found += send(assembler, (k + 1) * step, piece(k * step, step))
        assert ends(found) == [float(i) for i in range(1, int(round(10 / step) * step + 1e-9) + 1)]
        for g in found:
            assert g.faults == {}
            begin = round((g.end_us - T0) / S - 1) * 100
            np.testing.assert_array_equal(g.windows["vib"], np.arange(begin, begin + 100, dtype=np.float32))


def test_overlapping_windows_share_samples():
    """With every_s below length_s each window reaches back over the one before."""
    assembler = Assembler(decision(length_s=1.0, every_s=0.5))
    found = [g for k in range(20) for g in send(assembler, (k + 1) * 0.1, piece(k * 0.1, 0.1))]
    assert ends(found) == [1.0, 1.5, 2.0]
    assert found[1].windows["vib"][0] == 50


def test_each_burst_ends_one_window_even_when_it_comes_early_or_late():
    """Half a second every half hour, give or take: one decision a burst, at its end."""
    assembler = Assembler(decision(length_s=0.5, every_s=1800))
    starts = [0.0, 1800.0, 3600.2, 5399.7, 7200.0]
    found = [g for s in starts for g in send(assembler, s + 0.5, piece(s, 0.5))]
    assert ends(found) == [s + 0.5 for s in starts]
    assert all(not g.faults for g in found)


def test_a_burst_in_pieces_is_one_window():
    """A burst that arrives in several packets is decided once, when it is whole."""
    assembler = Assembler(decision(length_s=0.5, every_s=1800))
    found = []
    for start in (0.0, 1800.3):
        for k in range(5):
            found += send(assembler, start + 0.1 * (k + 1), piece(start + 0.1 * k, 0.1))
    assert ends(found) == [0.5, 1800.8]
    assert all(not g.faults for g in found)


def test_a_burst_much_too_early_is_no_window():
    """Nothing is due a third of the way to the next burst."""
    assembler = Assembler(decision(length_s=0.5, every_s=1800))
    assert ends(send(assembler, 0.5, piece(0.0, 0.5))) == [0.5]
    assert send(assembler, 600.5, piece(600.0, 0.5)) == []
    assert ends(send(assembler, 1800.5, piece(1800.0, 0.5))) == [1800.5]


TEMP = {"temp": {"unit": "Cel", "sampling": {"kind": "regular", "rate_hz": 10}, "range": [-20, 150]}}


def test_G2_a_missing_signal_is_a_fault_and_the_decision_still_due():
    """A burst without one signal: that one is NaN with words, the other is there, at the usual time."""
    assembler = Assembler(decision(length_s=0.5, every_s=1800, **TEMP))
    (first,) = send(assembler, 0.5, piece(0.0, 0.5))
    assert first.faults == {"temp": "never heard"}
    assert np.isnan(first.windows["temp"]).all()
    send(assembler, 1800.5, piece(1800, 0.5), piece(1800, 0.5, rate=10))
    (third,) = send(assembler, 3600.5, piece(3600, 0.5))
    assert third.faults == {"temp": "no samples for this window"}
    assert third.end_us == T0 + round(3600.5 * S)


def test_G2_a_burst_without_any_sample_is_still_decided():
    """When every sensor is silent the decision is made at the packet's time, with faults."""
    assembler = Assembler(decision(length_s=0.5, every_s=1800))
    send(assembler, 0.5, piece(0.0, 0.5))
    (second,) = send(assembler, 1800.5)
    assert second.faults == {"vib": "no samples for this window"}
    assert ends(send(assembler, 3600.5, piece(3600, 0.5))) == [3600.5]


def test_G2_a_silent_stream_is_decided_a_window_late():
    """In a stream, a packet of context alone does not make a window; a whole missing one does."""
    assembler = Assembler(decision())
    send(assembler, 1.0, piece(0.0, 1.0))
    assert send(assembler, 2.5) == []
    (late,) = send(assembler, 3.0)
    assert late.faults == {"vib": "no samples for this window"}


def test_a_short_gap_is_nan_and_judged_by_the_share():
    """Lost packets leave NaN in their place; the other samples stay where they belong."""
    assembler = Assembler(decision(bad=0.2))
    send(assembler, 0.5, piece(0.0, 0.5))
    (g,) = send(assembler, 1.0, piece(0.6, 0.4))
    assert np.isnan(g.windows["vib"][50:60]).all()
    assert g.windows["vib"][60] == 60
    assert np.count_nonzero(np.isnan(g.windows["vib"])) == 10


def test_after_a_long_pause_the_next_full_window_is_decided():
    """A pause longer than a window begins anew, and waits for a whole window."""
    assembler = Assembler(decision())
    send(assembler, 1.0, piece(0.0, 1.0))
    assert send(assembler, 6.0, piece(5.4, 0.6)) == []
    (g,) = send(assembler, 6.5, piece(6.0, 0.5))
    assert ends([g]) == [6.4]
    assert not np.isnan(g.windows["vib"]).any()


def test_a_stream_that_pauses_again_and_again_is_still_decided():
    """Waiting for a whole window ends after two lengths; what is missing is NaN."""
    assembler = Assembler(decision())
    send(assembler, 1.0, piece(0.0, 1.0))
    found = []
    for start in (4.0, 5.7, 7.4):
        found += send(assembler, start + 0.6, piece(start, 0.6))
    assert ends(found) == [6.0]
    assert np.isnan(found[0].windows["vib"]).any()


FAULTS = {
    "another rate": (piece(1.0, 1.0, rate=50), "declared 100 Hz"),
    "from the future": (piece(9.0, 1.0), "from the future"),
    "from the past": (piece(0.2, 0.5), "from the past"),
    "the same again": (piece(0.0, 1.0), "from the past"),
}


@pytest.mark.parametrize(("bad", "words"), FAULTS.values(), ids=FAULTS.keys())
def test_G2_samples_that_cannot_be_believed_are_a_fault(bad, words):
    """Wrong rate, future, past or repeated timestamps: the samples are dropped and the reason is said."""
    assembler = Assembler(decision())
    send(assembler, 1.0, piece(0.0, 1.0))
    found = send(assembler, 2.0, bad) + send(assembler, 3.0)
    assert found
    assert words in found[0].faults["vib"]
    assert np.isnan(found[0].windows["vib"]).all()


def test_G2_stuck_and_repeated_windows_are_faults_within_one_window():
    """A frozen sensor shows at once, a buffer sent again with new timestamps too; a live one does not."""
    rng = np.random.default_rng(1)
    noise = rng.normal(size=100)
    assembler = Assembler(decision())
    assert send(assembler, 1.0, piece(0, 1, values=noise))[0].faults == {}
    assert "repeats the last" in send(assembler, 2.0, piece(1, 1, values=noise))[0].faults["vib"]
    assert send(assembler, 3.0, piece(2, 1, values=rng.normal(size=100)))[0].faults == {}
    assert (
        "all 100 samples are 3" in send(assembler, 4.0, piece(3, 1, values=np.full(100, 3)))[0].faults["vib"]
    )


def test_a_slow_signal_may_stand_still():
    """Few samples that are equal are no proof of a dead sensor."""
    assert round(0.5 * RATE) < STUCK_SAMPLES
    assembler = Assembler(decision(length_s=0.5, every_s=0.5))
    for k in range(3):
        (g,) = send(assembler, 0.5 * (k + 1), piece(0.5 * k, 0.5, values=np.full(50, 7)))
        assert g.faults == {}


def test_nothing_is_due_twice_after_a_restart():
    """Told where the last window ended, an assembler that sees the same packets again goes on behind it."""
    assembler = Assembler(decision(), last_end_us=T0 + 3 * S)
    found = [g for k in range(6) for g in send(assembler, k + 1.0, piece(float(k), 1.0))]
    assert ends(found) == [4.0, 5.0, 6.0]
    assert all(not g.faults for g in found)
    bursts = Assembler(decision(length_s=0.5, every_s=1800), last_end_us=T0 + round(1800.5 * S))
    found = [g for s in (0.0, 1800.0, 3600.0) for g in send(bursts, s + 0.5, piece(s, 0.5))]
    assert ends(found) == [3600.5]


OIL = {"sampling": {"kind": "on_change", "max_age_s": 10, "grid_hz": 4}, "unit": "bar", "range": [0, 16]}


def test_on_change_values_are_held_on_the_grid():
    """Each grid instant has the last value before it; before the first there is none."""
    assembler = Assembler(decision(oil=OIL))
    points = (("oil", T0 + 300_000, 5.0), ("oil", T0 + 700_000, 6.0))
    (g,) = send(assembler, 1.0, piece(0, 1), points=points)
    np.testing.assert_array_equal(g.windows["oil"], np.float32([np.nan, 5, 6, 6]))
    (g,) = send(assembler, 2.0, piece(1, 1), points=(("oil", T0 + 500_000, 99.0),))
    np.testing.assert_array_equal(g.windows["oil"], np.float32([6, 6, 6, 6]))
    assert g.faults == {}


def test_G2_a_held_value_ages_and_one_from_the_future_is_refused():
    """Too old: NaN with words. Ahead of its packet: refused, the old one holds."""
    assembler = Assembler(decision(oil=OIL))
    assert send(assembler, 1.0, piece(0, 1))[0].faults == {"oil": "never heard"}
    send(assembler, 2.0, piece(1, 1), points=(("oil", T0 + 2 * S, 5.0),))
    (g,) = send(assembler, 3.0, piece(2, 1), points=(("oil", T0 + 60 * S, 9.0),))
    assert "from the future" in g.faults["oil"]
    for k in range(3, 13):
        (g,) = send(assembler, k + 1.0, piece(float(k), 1.0))
    assert "last value 11 s old" in g.faults["oil"]
    assert np.isnan(g.windows["oil"][-1])


def test_memory_stays_bounded_between_windows():
    """A stream that is decided once an hour keeps one window of samples, not an hour."""
    assembler = Assembler(decision(length_s=1.0, every_s=3600))
    for k in range(200):
        send(assembler, k + 1.0, piece(float(k), 1.0))
    assert assembler._runs["vib"]._values.size <= 200


def test_a_blank_look_has_nothing_but_faults():
    """Before the first window every signal is NaN and says so."""
    blank = Assembler(decision(oil=OIL)).blank(T0)
    assert set(blank.faults) == {"vib", "oil"}
    assert np.isnan(blank.windows["vib"]).all()
