"""Where a decision must or can run, with the numbers that say so.

Three places are judged by the same questions: the device at the machine, a server of the site, the cloud.
Latencies are 99th percentiles; their sum bounds the decision's latency in all but 1 % per summand (union
bound), so it is a safe figure and not an exact one. MB are 10⁶ bytes. The example targets and links are
examples: measure your own (``aiotkit decision place --measure``) and pass them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field, NonNegativeFloat, PositiveFloat, ValidationError

from aiotkit.core.canonical import JSON, canonical_bytes
from aiotkit.core.decision import Decision
from aiotkit.core.errors import PlacementError
from aiotkit.core.frames import HEAD_SIZE, HEADER_SIZE
from aiotkit.core.problems import parse_problems
from aiotkit.core.strict import Strict

FORMAT = 1
DAY_S = 86_400.0
MB = 1e6
Place = Literal["device", "site", "cloud"]
PLACES: tuple[Place, ...] = get_args(Place)
#: share of windows that leave under ``upload: selected``; the engine's draw uses the same
SELECTED_SHARE = 0.05
#: size of a decision record (bytes): fixed part, and per feature, history or context value in it
RECORD_BYTES, VALUE_BYTES = 1200, 60
#: memory (MB) of a process with onnxruntime and numpy loaded, and of what aiotkit may add to it
FLOOR_MB, RUNTIME_MB = 58.0, 60.0


class Host(Strict):
    """A computer that could decide: p99 of one decision and of one synced write, memory left for it.

    ``journal_mb``: room for records while the uplink is down.
    """

    decide_p99_ms: PositiveFloat
    fsync_p99_ms: NonNegativeFloat
    memory_mb: PositiveFloat
    journal_mb: PositiveFloat | None = None


class Route(Strict):
    """A way from the device: round trip p99, upstream rate (Mbit/s), longest outage, allowance per day."""

    rtt_p99_ms: NonNegativeFloat
    up_mbit_s: PositiveFloat
    outage_s: NonNegativeFloat
    mb_per_day: PositiveFloat | None = None


class Target(Strict):
    """The computers there are: the device, and maybe a server of the site and one in the cloud."""

    name: str = Field(min_length=1, max_length=64)
    device: Host
    site: Host | None = None
    cloud: Host | None = None


class Link(Strict):
    """The ways from the device to the site's server and to the cloud."""

    name: str = Field(min_length=1, max_length=64)
    site: Route | None = None
    cloud: Route | None = None


class Surroundings(Strict):
    """A target and its link in one document; what ``aiotkit decision place --target FILE`` reads."""

    format: Literal[1]
    target: Target
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class Volumes:
    """Decisions a day, and bytes a day that leave the device under each ``needs.upload``."""

    decisions: float
    none: float
    features: float
    selected: float
    raw: float

    def under(self, upload: str) -> float:
        """Bytes a day under one policy."""
        return float(getattr(self, upload))


@dataclass(frozen=True, slots=True)
class Check:
    """One question put to one place. ``change``: the figures that would turn a no into a yes."""

    name: str
    holds: bool
    reason: str
    change: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One place and every check put to it."""

    place: Place
    checks: tuple[Check, ...]

    @property
    def possible(self) -> bool:
        """Whether nothing speaks against it."""
        return all(check.holds for check in self.checks)

    @property
    def changes(self) -> tuple[str, ...]:
        """What would have to change, all of it, for this place to be possible."""
        return tuple(check.change for check in self.checks if not check.holds)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the decision can run, from the machine outwards, and why."""

    decision: str
    target: str
    link: str | None
    volumes: Volumes
    candidates: tuple[Candidate, ...]

    @property
    def possible(self) -> tuple[Place, ...]:
        """The places nothing speaks against, the nearest to the machine first."""
        return tuple(c.place for c in self.candidates if c.possible)

    @property
    def verdict(self) -> str:
        """One line: where it must or can run, or what would have to change."""
        found = self.possible
        if len(found) == 1:
            return f"{self.decision} must run here: {found[0]}"
        if found:
            return f"{self.decision} can run here: {', '.join(found)}; nearest to the machine: {found[0]}"
        nearest = min(self.candidates, key=lambda c: len(c.changes))
        return f"{self.decision} can run nowhere; nearest is {nearest.place}: {'; '.join(nearest.changes)}"

    def require(self) -> Place:
        """The place nearest to the machine.

        Raises:
            PlacementError: it can run nowhere; says which figures would have to change.
        """
        if not self.possible:
            raise PlacementError(self.verdict)
        return self.possible[0]

    def to_json(self) -> JSON:
        """Plain data with every check."""
        return {
            "decision": self.decision,
            "target": self.target,
            "link": self.link,
            "verdict": self.verdict,
            "possible": list(self.possible),
            "bytes_per_day": {name: round(self.volumes.under(name)) for name in _UPLOADS},
            "decisions_per_day": self.volumes.decisions,
            "places": {
                c.place: {
                    "possible": c.possible,
                    "checks": [
                        {"name": k.name, "holds": k.holds, "reason": k.reason, "change": k.change}
                        for k in c.checks
                    ],
                }
                for c in self.candidates
            },
        }


_UPLOADS = ("none", "features", "selected", "raw")


def parse_surroundings(document: Any, name: str = "target file") -> Surroundings:
    """Read a target and link from plain data.

    Raises:
        PlacementError: every problem, where it is, and a hint where there is one.
    """
    if not isinstance(document, Mapping):
        raise PlacementError(name, expected="a mapping with format: 1", found=type(document).__name__)
    try:
        return Surroundings.model_validate(document)
    except ValidationError as error:
        raise PlacementError(f"{name}: " + "; ".join(parse_problems(error, Surroundings))) from error


def place(decision: Decision, target: Target, link: Link | None) -> Placement:
    """Judge every place the decision could run.

    Args:
        decision: what is to be decided, how fast, with which signals, and what may leave.
        target: the computers there are; use measured figures.
        link: the ways between them; None = no network at all.
    """
    found = volumes(decision)
    return Placement(
        decision.id,
        target.name,
        None if link is None else link.name,
        found,
        tuple(Candidate(name, tuple(_checks(decision, target, link, name, found))) for name in PLACES),
    )


def volumes(decision: Decision) -> Volumes:
    """Decisions and bytes a day of one subject, from signals, rates and windows.

    A decision is two journal frames: its windows (float32) and its record. ``none`` sends frames without
    payloads, ``features`` the records, ``raw`` the windows too, ``selected`` the ordinary share of them
    (those with faults or questions come on top). Windows that overlap are counted as often as they are sent.
    """
    per_day = DAY_S / decision.window.every_s
    heads = per_day * 2 * (HEADER_SIZE + HEAD_SIZE)
    values = len(decision.features()) + len(decision.history) + len(decision.context)
    records = per_day * (RECORD_BYTES + VALUE_BYTES * values)
    windows = per_day * window_bytes(decision)
    return Volumes(
        per_day,
        heads,
        heads + records,
        heads + records + SELECTED_SHARE * windows,
        heads + records + windows,
    )


def window_bytes(decision: Decision) -> int:
    """Bytes of one window of every signal, as ``core.records.pack_windows`` writes it."""
    samples = {name: decision.samples(name) for name in decision.signals}
    return len(canonical_bytes(samples)) + 1 + 4 * sum(samples.values())


def needs_intent(decision: Decision) -> tuple[str, ...]:
    """The actions whose intent must be durable before they happen: irreversible, with an actuator."""
    return tuple(n for n, a in decision.actions.items() if not a.reversible and a.actuator is not None)


def _checks(
    decision: Decision, target: Target, link: Link | None, name: Place, found: Volumes
) -> Iterator[Check]:
    host: Host | None = getattr(target, name)
    route = None if name == "device" or link is None else getattr(link, name)
    if host is None:
        yield Check("host", False, f"target '{target.name}' has no {name} host", f"add target.{name}")
        return
    if name != "device" and route is None:
        yield Check("route", False, f"no way from the device to the {name}", f"add link.{name}")
        return
    yield _deadline(decision, host, route, name)
    yield _keeps_up(decision, host, route)
    if route is not None:
        yield _offline(decision, route, name)
        yield _carries_windows(found, route, name)
    if name == "cloud":
        yield _may_leave(decision)
    yield _memory(decision, host, name)
    yield from _uplink(decision, host, link, name, found)


def _deadline(decision: Decision, host: Host, route: Route | None, name: Place) -> Check:
    """Window sent there, decided, intent durable where needed, command back: by the deadline."""
    parts = [(f"{name} decide_p99_ms", host.decide_p99_ms)]
    intent = needs_intent(decision)
    if intent:
        parts.append((f"{name} fsync_p99_ms (intent of irreversible '{intent[0]}')", host.fsync_p99_ms))
    if route is not None:
        parts.append((f"{name} rtt_p99_ms", route.rtt_p99_ms))
        parts.append((f"sending {window_bytes(decision)} bytes", _sending_ms(decision, route)))
    total, deadline = sum(ms for _, ms in parts), decision.needs.deadline_ms
    terms = " + ".join(f"{what} {ms:.3g}" for what, ms in parts)
    sign = "<=" if total <= deadline else ">"
    return Check(
        "deadline",
        total <= deadline,
        f"{terms} = {total:.4g} ms {sign} deadline_ms {deadline:g}",
        f"needs.deadline_ms at least {total:.4g} (is {deadline:g}), "
        f"or the {name} faster by {total - deadline:.3g} ms",
    )


def _keeps_up(decision: Decision, host: Host, route: Route | None) -> Check:
    """Before the next window is due, this one must be decided and sent."""
    busy = max(host.decide_p99_ms, 0.0 if route is None else _sending_ms(decision, route))
    every = 1e3 * decision.window.every_s
    return Check(
        "keeps up",
        busy <= every,
        f"busy {busy:.3g} ms of the {every:g} ms between windows",
        f"window.every_s at least {busy / 1e3:.3g} (is {decision.window.every_s:g})",
    )


def _offline(decision: Decision, route: Route, name: Place) -> Check:
    lost = route.outage_s / decision.window.every_s
    outage = f"an outage of {route.outage_s:g} s to the {name} costs {lost:.4g} decisions"
    bridged = 1e3 * route.outage_s <= decision.needs.deadline_ms
    return Check(
        "offline",
        bridged or not decision.needs.offline,
        f"{outage}; needs.offline is {str(decision.needs.offline).lower()}",
        f"link.{name}.outage_s at most {decision.needs.deadline_ms / 1e3:g} (is {route.outage_s:g}), "
        "or needs.offline: false",
    )


def _carries_windows(found: Volumes, route: Route, name: Place) -> Check:
    """A remote place needs every window, whatever is kept of them afterwards."""
    if route.mb_per_day is None:
        return Check("windows", True, f"{found.raw / MB:.4g} MB a day to the {name}, no allowance set")
    need = found.raw / MB
    return Check(
        "windows",
        need <= route.mb_per_day,
        f"deciding there takes {need:.4g} MB of windows a day; the allowance is {route.mb_per_day:g}",
        f"link.{name}.mb_per_day at least {need:.4g} (is {route.mb_per_day:g})",
    )


def _may_leave(decision: Decision) -> Check:
    upload = decision.needs.upload
    return Check(
        "privacy",
        upload == "raw",
        f"deciding in the cloud sends every window out of the site; needs.upload is {upload}",
        f"needs.upload: raw (is {upload})",
    )


def _memory(decision: Decision, host: Host, name: Place) -> Check:
    stated = decision.limits.memory_mb
    need = FLOOR_MB + RUNTIME_MB if stated is None else stated
    why = "limits.memory_mb" if stated is not None else f"{FLOOR_MB:g} bare + {RUNTIME_MB:g} aiotkit"
    return Check(
        "memory",
        need <= host.memory_mb,
        f"{need:g} MB ({why}) of {host.memory_mb:g} MB",
        f"target.{name}.memory_mb at least {need:g} (is {host.memory_mb:g})",
    )


def _uplink(
    decision: Decision, host: Host, link: Link | None, name: Place, found: Volumes
) -> Iterator[Check]:
    """What ``needs.upload`` sends must fit the way out; records must survive its longest outage."""
    upload, route = decision.needs.upload, None if link is None else link.cloud or link.site
    if route is None:
        yield Check("upload", True, f"no link: {found.under(upload) / MB:.4g} MB a day travel by folder")
        return
    if route.mb_per_day is not None:
        need = found.under(upload) / MB
        cheaper = [u for u in _UPLOADS if found.under(u) / MB <= route.mb_per_day]
        instead = f", or needs.upload: {cheaper[-1]} ({found.under(cheaper[-1]) / MB:.4g})" if cheaper else ""
        yield Check(
            "upload",
            need <= route.mb_per_day,
            f"upload: {upload} takes {need:.4g} MB a day; the allowance is {route.mb_per_day:g}",
            f"mb_per_day at least {need:.4g} (is {route.mb_per_day:g}){instead}",
        )
    if host.journal_mb is not None:
        held = found.features * route.outage_s / DAY_S / MB
        yield Check(
            "journal",
            held <= host.journal_mb,
            f"records of an outage of {route.outage_s:g} s fill {held:.4g} of {host.journal_mb:g} MB",
            f"target.{name}.journal_mb at least {held:.4g} (is {host.journal_mb:g})",
        )


def _sending_ms(decision: Decision, route: Route) -> float:
    return window_bytes(decision) * 8 / (route.up_mbit_s * 1e6) * 1e3


#: examples, not measurements: typical orders of magnitude to start a talk with
EXAMPLE_TARGETS: Mapping[str, Target] = {
    t.name: t
    for t in (
        Target(
            name="gateway-sd-card",
            device=Host(decide_p99_ms=20, fsync_p99_ms=150, memory_mb=512, journal_mb=2_000),
        ),
        Target(
            name="industrial-pc",
            device=Host(decide_p99_ms=3, fsync_p99_ms=8, memory_mb=4_000, journal_mb=50_000),
            site=Host(decide_p99_ms=2, fsync_p99_ms=4, memory_mb=32_000, journal_mb=500_000),
        ),
        Target(
            name="gateway-site-cloud",
            device=Host(decide_p99_ms=10, fsync_p99_ms=30, memory_mb=1_000, journal_mb=8_000),
            site=Host(decide_p99_ms=2, fsync_p99_ms=4, memory_mb=32_000, journal_mb=500_000),
            cloud=Host(decide_p99_ms=2, fsync_p99_ms=10, memory_mb=64_000),
        ),
    )
}
EXAMPLE_LINKS: Mapping[str, Link] = {
    link.name: link
    for link in (
        Link(
            name="plant-ethernet",
            site=Route(rtt_p99_ms=5, up_mbit_s=100, outage_s=3_600),
            cloud=Route(rtt_p99_ms=80, up_mbit_s=20, outage_s=4 * 3_600),
        ),
        Link(name="lte", cloud=Route(rtt_p99_ms=250, up_mbit_s=5, outage_s=DAY_S, mb_per_day=300)),
        Link(name="satellite", cloud=Route(rtt_p99_ms=900, up_mbit_s=0.5, outage_s=2 * DAY_S, mb_per_day=20)),
    )
}
