"""Where a decision can run: every figure worked out by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotkit.core.decision import Decision, parse_decision
from aiotkit.core.errors import PlacementError
from aiotkit.core.placement import (
    EXAMPLE_LINKS,
    EXAMPLE_TARGETS,
    Host,
    Link,
    Placement,
    Route,
    Target,
    needs_intent,
    parse_surroundings,
    place,
    volumes,
    window_bytes,
)


def a_decision(**changes: Any) -> Decision:
    """100 samples of ``vib`` and 1 of ``oil`` every 10 s: one feature, no context, no history."""
    document: dict[str, Any] = {
        "format": 1,
        "id": "pump",
        "revision": 1,
        "subject": "pump",
        "question": "stop it?",
        "site": {"name": "hall"},
        "states": {"ok": {}, "bad": {}},
        "actions": {"run": {}, "stop": {"reversible": False, "actuator": "relay"}},
        "costs": {"run": {"ok": 0, "bad": 500}, "stop": {"ok": 80, "bad": 80}},
        "signals": {
            "vib": {"unit": "g", "sampling": {"kind": "regular", "rate_hz": 100}, "range": [-10, 10]},
            "oil": {"unit": "Cel", "sampling": {"kind": "on_change", "max_age_s": 60}, "range": [0, 120]},
        },
        "window": {"length_s": 1, "every_s": 10},
        "needs": {"deadline_ms": 50, "offline": True, "upload": "features"},
        "rule": [{"when": {"field": "vib.rms", "gt": 5}, "do": "stop"}, {"otherwise": "run"}],
        "recovery": "run",
        "outcome": {
            "horizon_s": 60,
            "maturity_s": 60,
            "sources": {"op": {"reports": ["ok", "bad"], "reliability": 1.0}},
        },
    }
    return parse_decision(document | changes)


def needs(**changes: Any) -> dict[str, Any]:
    return {"deadline_ms": 50, "offline": True, "upload": "features"} | changes


HOST = Host(decide_p99_ms=10, fsync_p99_ms=30, memory_mb=1000)
EVERYWHERE = Target(name="all", device=HOST, site=HOST, cloud=HOST)
LINK = Link(
    name="net",
    site=Route(rtt_p99_ms=5, up_mbit_s=100, outage_s=3600),
    cloud=Route(rtt_p99_ms=80, up_mbit_s=10, outage_s=3600, mb_per_day=20),
)


def check(placement: Placement, where: str, name: str) -> Any:
    candidate = next(c for c in placement.candidates if c.place == where)
    return next(c for c in candidate.checks if c.name == name)


def test_volumes_follow_from_rates_and_windows() -> None:
    """Bytes a day are those of the frames that are sent, under each upload policy."""
    decision = a_decision()
    # the line {"oil":1,"vib":100} and its newline are 20 bytes; 101 samples of 4 bytes
    assert window_bytes(decision) == 20 + 404
    found = volumes(decision)
    assert found.decisions == 8640
    # two frames of 49 + 32 bytes without payloads; a record of 1200 + 60 for the one feature vib.rms
    assert found.none == 8640 * 2 * 81
    assert found.features == 8640 * (162 + 1260)
    assert found.raw == 8640 * (162 + 1260 + 424)
    assert found.selected == pytest.approx(8640 * (162 + 1260 + 0.05 * 424))


def test_a_record_estimate_is_near_real_records() -> None:
    """The size assumed for a record lies within a factor of two of one that was really written."""
    from aiotkit.core.gates import Verdict
    from aiotkit.core.records import Decided, DecisionInput, Draw, EngineState, decision_payload

    given_ = DecisionInput(
        "device-1/0123456789abcdef/17", 1_700_000_000_000_000, 1_700_000_000_000_000, {}, {}
    )
    state = EngineState()
    decided = Decided(
        {"vib.rms": 1.234567891234}, {}, None, {"run": 1.5, "stop": 80.0}, {}, "run", "rule: otherwise",
        Verdict.ALLOW, (), "run", "allowed", "run", "shadow", None, None, Draw(0.01, 0.123456789123),
        Draw(0.05, 0.123456789123), state,
    )  # fmt: skip
    stages = dict.fromkeys(("check", "graph", "policy", "gates", "resolve"), 12.345)
    payload = decision_payload(
        given_,
        state,
        decided,
        window_digest="sha256:" + "0" * 64,
        bundle="sha256:" + "0" * 64,
        decision=("bearing", 1),
        timing=stages,
    )
    assert 0.5 < len(payload) / 1260 < 2


def test_deadline_on_the_device_counts_the_intent_of_an_irreversible_action() -> None:
    """Decide 10 + fsync 30 = 40 ms fits 50 ms and not 39 ms."""
    fits = check(place(a_decision(), EVERYWHERE, None), "device", "deadline")
    assert fits.holds
    assert "= 40 ms <= deadline_ms 50" in fits.reason
    late = check(place(a_decision(needs=needs(deadline_ms=39)), EVERYWHERE, None), "device", "deadline")
    assert not late.holds
    assert late.change == "needs.deadline_ms at least 40 (is 39), or the device faster by 1 ms"


def test_a_reversible_action_waits_for_no_fsync() -> None:
    """Without an irreversible actuation only the decision itself counts: 10 ms fit 11 ms."""
    reversible = a_decision(
        needs=needs(deadline_ms=11), actions={"run": {}, "stop": {"reversible": True, "actuator": "relay"}}
    )
    assert needs_intent(reversible) == ()
    assert check(place(reversible, EVERYWHERE, None), "device", "deadline").holds
    assert needs_intent(a_decision()) == ("stop",)


def test_a_remote_deadline_counts_the_network() -> None:
    """Site: 10 + 30 + rtt 5 + 424 bytes at 100 Mbit/s (0.034 ms) = 45.03 ms; cloud: 120.3 ms is late."""
    found = place(a_decision(needs=needs(offline=False)), EVERYWHERE, LINK)
    assert "= 45.03 ms <= deadline_ms 50" in check(found, "site", "deadline").reason
    cloud = check(found, "cloud", "deadline")
    assert not cloud.holds
    assert cloud.change.startswith("needs.deadline_ms at least 120.3 (is 50)")


def test_offline_rules_out_every_place_behind_an_outage() -> None:
    """An hour without network costs 360 decisions; with offline: true only the device remains."""
    found = place(a_decision(), EVERYWHERE, LINK)
    assert found.possible == ("device",)
    assert found.verdict == "pump must run here: device"
    offline = check(found, "site", "offline")
    assert "an outage of 3600 s to the site costs 360 decisions" in offline.reason
    assert offline.change == "link.site.outage_s at most 0.05 (is 3600), or needs.offline: false"


def test_an_outage_shorter_than_the_deadline_is_no_outage() -> None:
    """Offline holds behind a route whose longest outage the deadline covers."""
    steady = Link(name="lan", site=Route(rtt_p99_ms=5, up_mbit_s=100, outage_s=0.05))
    assert check(place(a_decision(), EVERYWHERE, steady), "site", "offline").holds


def test_without_the_need_to_run_offline_the_site_can_decide_too() -> None:
    """Two places are possible; the one at the machine is named first."""
    found = place(a_decision(needs=needs(offline=False)), EVERYWHERE, LINK)
    assert found.possible == ("device", "site")
    assert found.verdict == "pump can run here: device, site; nearest to the machine: device"


def test_the_cloud_needs_leave_to_see_every_window() -> None:
    """Only upload: raw lets windows out of the site, so only then can the cloud decide."""
    open_ = needs(offline=False, deadline_ms=500)
    assert "cloud" not in place(a_decision(needs=open_), EVERYWHERE, LINK).possible
    assert "cloud" in place(a_decision(needs=open_ | {"upload": "raw"}), EVERYWHERE, LINK).possible


def test_an_allowance_limits_what_is_uploaded() -> None:
    """15.95 MB of raw windows do not fit 13 MB a day; features (12.29) do, and are offered."""
    narrow = Link(name="lte", cloud=Route(rtt_p99_ms=80, up_mbit_s=10, outage_s=60, mb_per_day=13))
    found = place(a_decision(needs=needs(upload="raw")), Target(name="t", device=HOST), narrow)
    upload = check(found, "device", "upload")
    assert not upload.holds
    assert "upload: raw takes 15.95 MB a day; the allowance is 13" in upload.reason
    assert "or needs.upload: selected (12.47)" in upload.change
    assert place(a_decision(), Target(name="t", device=HOST), narrow).possible == ("device",)


def test_deciding_elsewhere_takes_every_window_over_the_route() -> None:
    """A site server gets all 15.95 MB a day even where only features leave the site."""
    narrow = Link(name="wifi", site=Route(rtt_p99_ms=5, up_mbit_s=10, outage_s=0, mb_per_day=15))
    windows = check(place(a_decision(), EVERYWHERE, narrow), "site", "windows")
    assert not windows.holds
    assert windows.change == "link.site.mb_per_day at least 15.95 (is 15)"


def test_a_window_must_be_done_before_the_next_is_due() -> None:
    """A decision that takes 12 s does not keep up with one every 10 s, whatever the deadline."""
    slow = Target(name="slow", device=Host(decide_p99_ms=12_000, fsync_p99_ms=1, memory_mb=1000))
    found = check(place(a_decision(needs=needs(deadline_ms=60_000)), slow, None), "device", "keeps up")
    assert not found.holds
    assert found.change == "window.every_s at least 12 (is 10)"


def test_memory_is_the_stated_limit_or_the_runtime() -> None:
    """118 MB (58 bare and 60 of ours) do not fit 100 MB; a stated limit counts instead."""
    small = Target(name="small", device=Host(decide_p99_ms=1, fsync_p99_ms=1, memory_mb=100))
    memory = check(place(a_decision(), small, None), "device", "memory")
    assert not memory.holds
    assert memory.change == "target.device.memory_mb at least 118 (is 100)"
    assert check(place(a_decision(limits={"memory_mb": 90}), small, None), "device", "memory").holds


def test_records_of_an_outage_must_fit_the_journal() -> None:
    """Two days of records at 12.29 MB a day do not fit a journal of 20 MB."""
    host = Host(decide_p99_ms=1, fsync_p99_ms=1, memory_mb=1000, journal_mb=20)
    rare = Link(name="sat", cloud=Route(rtt_p99_ms=900, up_mbit_s=1, outage_s=2 * 86_400))
    journal = check(place(a_decision(), Target(name="t", device=host), rare), "device", "journal")
    assert not journal.holds
    assert journal.change == "target.device.journal_mb at least 24.57 (is 20)"


def test_impossible_everywhere_names_the_figure_to_change() -> None:
    """Nowhere is an answer: it names the nearest place and what would have to change there."""
    found = place(a_decision(needs=needs(deadline_ms=39)), Target(name="t", device=HOST), None)
    assert found.possible == ()
    wanted = "pump can run nowhere; nearest is device: needs.deadline_ms at least 40 (is 39)"
    assert found.verdict.startswith(wanted)
    with pytest.raises(PlacementError, match=r"can run nowhere; nearest is device: needs\.deadline_ms"):
        found.require()


def test_a_place_that_can_is_returned() -> None:
    """``require`` gives the place nearest to the machine."""
    assert place(a_decision(), EVERYWHERE, LINK).require() == "device"


def test_missing_hosts_and_routes_are_said() -> None:
    """A place without a computer or a way to it is impossible, and says which is missing."""
    found = place(a_decision(), Target(name="t", device=HOST, site=HOST), None)
    assert check(found, "cloud", "host").change == "add target.cloud"
    assert check(found, "site", "route").change == "add link.site"


def test_the_share_of_selected_windows_is_the_engines() -> None:
    """Placement counts the share of windows that the engine really draws."""
    from aiotkit.bundle import engine
    from aiotkit.core import placement

    assert placement.SELECTED_SHARE == engine.SELECTED_SHARE


@given(st.floats(0.001, 1e5), st.floats(0, 1e5), st.floats(0, 1e5), st.floats(0.001, 1e4), st.floats(0, 1e6))
def test_a_slower_or_worse_link_never_adds_a_place(
    decide: float, fsync: float, rtt: float, rate: float, outage: float
) -> None:
    """Making any figure worse can only take places away."""
    decision = a_decision(needs=needs(offline=False, upload="raw", deadline_ms=1000))

    def possible(factor: float) -> set[str]:
        host = Host(decide_p99_ms=decide * factor, fsync_p99_ms=fsync * factor, memory_mb=1000)
        route = Route(rtt_p99_ms=rtt * factor, up_mbit_s=rate / factor, outage_s=outage * factor)
        target = Target(name="t", device=host, site=host, cloud=host)
        return set(place(decision, target, Link(name="l", site=route, cloud=route)).possible)

    assert possible(2.0) <= possible(1.0)


def test_examples_are_complete_and_json() -> None:
    """Every example target with every example link gives an answer that JSON can carry."""
    for target in EXAMPLE_TARGETS.values():
        for link in (None, *EXAMPLE_LINKS.values()):
            answer = place(a_decision(), target, link)
            assert len(answer.candidates) == 3
            assert json.loads(json.dumps(answer.to_json()))["verdict"] == answer.verdict


def test_surroundings_are_read_strictly() -> None:
    """A typing error in a target file is named with a hint; a good file is read."""
    good = {"format": 1, "target": EVERYWHERE.model_dump(), "link": LINK.model_dump()}
    assert parse_surroundings(good).link == LINK
    bad = {"format": 1, "target": {"name": "t", "device": {"decide_p99ms": 1}}}
    with pytest.raises(PlacementError, match=r"did you mean 'decide_p99_ms'"):
        parse_surroundings(bad)
    with pytest.raises(PlacementError, match="expected a mapping with format: 1; found list"):
        parse_surroundings([])
