"""The people of the simulated plant: they look at machines, answer questions and hand machines back.

They use what operators use on a real device: its outbox of questions, and signed messages in its inbox.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiotkit.bundle.keys import SigningKey
from aiotkit.core.decision import Decision
from aiotkit.edge.messages import make_message, sign_message
from aiotkit.edge.operator import INBOX, OUTBOX
from aiotkit.loop.link import Link
from aiotkit.loop.maintenance import Report
from aiotkit.loop.policies import cheapest
from aiotkit.loop.twin import Twin

OPERATOR = "crew"


@dataclass
class Crew:
    """Serves all machines of arm 0.

    A question is answered once an inspector has looked, with the action that costs least in the state
    he names. ``asked`` and ``inspections`` count what was done.
    """

    twin: Twin
    decision: Decision
    key: SigningKey
    asked: int = 0
    inspections: int = 0
    _since: dict[str, int] = field(default_factory=dict)  # question -> µs at which it was first seen

    def work(self, links: Mapping[int, Link], now_us: int) -> None:
        """One round: read every outbox, answer what inspections allow, release repaired machines."""
        reports = self.twin.reports_until(now_us)
        for machine, link in links.items():
            for question in open_questions(link.state):
                self._look(question, machine, now_us)
                if question["kind"] in ("ask", "confirm"):
                    self._answer(link, machine, question, reports, now_us)
            if link.alive and bool(self.twin.released[0, machine]):
                self._say(link, "override", now_us, "run")

    def _look(self, question: Mapping[str, Any], machine: int, now_us: int) -> None:
        """The first time a question is seen, an inspector sets out."""
        if question["id"] in self._since or question["kind"] == "suggest":
            return
        self._since[question["id"]] = now_us
        verify = question["kind"] == "inspect"
        self.twin.request_inspection(machine, verify=verify)
        if verify:
            self.inspections += 1
        else:
            self.asked += 1

    def _answer(
        self, link: Link, machine: int, question: Mapping[str, Any], reports: Sequence[Report], now_us: int
    ) -> None:
        since = self._since[question["id"]]
        mine = (r for r in reversed(reports) if r.subject == machine and r.source == "inspection")
        report = next((r for r in mine if r.at_us > since), None)
        if report is not None:
            action = cheapest(self.decision, report.state)
            self._say(link, "answer", now_us, action, question["id"])

    def _say(self, link: Link, kind: str, now_us: int, action: str, question: str | None = None) -> None:
        message = make_message(link.name, kind, OPERATOR, now_us, action=action, question=question)
        path = link.state / INBOX / f"{message.id}.json"
        aside = path.with_suffix(".aside")
        aside.write_bytes(sign_message(message, self.key))
        aside.rename(path)


def open_questions(state: Path) -> list[dict[str, Any]]:
    """What a device asks at the moment, as it lies in its outbox."""
    return [json.loads(path.read_bytes()) for path in sorted((state / OUTBOX).glob("*.json"))]
