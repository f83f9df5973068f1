"""The decision file: everything it may say, and every way it may be wrong."""

from __future__ import annotations

import copy
import math

import pytest
from worlds.documents import press_guard

from aiotkit.core.decision import decision_schema, parse_decision
from aiotkit.core.errors import DecisionFileError

GONE = object()
BELOW = {"field": "vib.rms", "gt": 7}


def spoil(path, value):
    """The good document with one place changed (``GONE``: removed)."""
    document = press_guard()
    *above, last = path
    node = document
    for key in above:
        node = node[key]
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return document


def problems(document):
    """The lines of the error, without their bullets."""
    with pytest.raises(DecisionFileError, match=r"^press\.yaml") as caught:
        parse_decision(document, "press.yaml")
    head, *lines = str(caught.value).splitlines()
    assert not lines or head == f"press.yaml: {len(lines)} problem" + "s" * (len(lines) > 1)
    return [line.removeprefix("  - ") for line in lines] or [head]


# place, what is put there, the one problem that must be said
WRONG = [
    # shape
    (["signls"], {}, "signls: unknown key; did you mean 'signals'?"),
    (["needs", "dedline_ms"], 5, "needs.dedline_ms: unknown key; did you mean 'deadline_ms'?"),
    (["zebra"], 1, "zebra: unknown key"),
    (["recovery"], GONE, "recovery: missing"),
    (["site", "name"], GONE, "site.name: missing"),
    (["id"], "Press Guard", "id: String should match pattern '^[a-z][a-z0-9-]{0,62}$'; found 'Press Guard'"),
    (["revision"], 0, "revision: Input should be greater than or equal to 1; found 0"),
    (
        ["states"],
        {"worn": {}},
        "states: Dictionary should have at least 2 items after validation, not 1",
    ),
    (
        ["actions", "go-on"],
        {},
        "actions.go-on: a name begins with a letter and has letters, digits and _ only",
    ),
    # numbers
    (["costs", "run", "worn"], math.nan, "costs.run.worn: expected a finite number; found nan"),
    (["costs", "run", "worn"], math.inf, "costs.run.worn: expected a finite number; found inf"),
    (["costs", "run", "worn"], "900", "costs.run.worn: expected a number; found '900'"),
    (["costs", "run", "worn"], True, "costs.run.worn: expected a number; found True"),
    (["needs", "offline"], "yes", "needs.offline: expected true or false; found 'yes'"),
    (["format"], True, "format: expected a number; found True"),
    (
        ["window", "length_s"],
        -1,
        "window.length_s: Input should be greater than or equal to 0.000001; found -1",
    ),
    (["verify", "share"], 2, "verify.share: Input should be less than or equal to 1; found 2"),
    (
        ["signals", "vib", "range"],
        [50, 0],
        "signals.vib: range needs low < high; found [50.0, 0.0]",
    ),
    (["signals", "vib", "range"], [0], "signals.vib.range[1]: missing"),
    (["context", "load", "range"], [7, 7], "context.load: range needs low < high; found [7.0, 7.0]"),
    # costs
    (
        ["costs", "run", "worn"],
        GONE,
        "costs.run.worn: missing; say what one episode costs in EUR when 'run' is done and the state is "
        "'worn', or write costs: unknown",
    ),
    (
        ["costs", "run", "wornn"],
        1,
        "costs.run.wornn: unknown state 'wornn'; did you mean 'worn'?",
    ),
    (
        ["costs", "rnu"],
        {"healthy": 1, "worn": 2},
        "costs.rnu: unknown action 'rnu'; did you mean 'run'?",
    ),
    (["costs"], "unknwn", "costs: Input should be 'unknown'; found 'unknwn'"),
    (["costs", "run"], 5, "costs.run: Input should be a valid dictionary; found 5"),
    # names
    (
        ["signals", "context"],
        press_guard()["signals"]["oil"],
        "signals.context: the name is reserved for fields of that kind; choose another",
    ),
    (
        ["gates", 1, "name"],
        "running",
        "gates: two gates are named 'running'; give each its own name",
    ),
    # rule
    (
        ["rule", 2],
        {"when": {"field": "oil.last", "lt": 5}, "do": "run"},
        "rule[2]: the last line, and only that, is {otherwise: <action>}",
    ),
    (["rule", 0], {"do": "run"}, "rule[0]: a rule line is either {when, do} or {otherwise}"),
    (["rule", 0, "do"], "stpo", "rule[0]: unknown action 'stpo'; did you mean 'stop'?"),
    (["rule", 2, "otherwise"], "idle", "rule[2]: unknown action 'idle'; known: run, slow, stop"),
    (
        ["rule", 0, "when"],
        {"field": "p.worn", "gt": 0.5},
        "rule[0].when: the written rule cannot read 'p.worn': it must work before there is a model",
    ),
    (
        ["rule", 1, "when"],
        {"field": "vib.rms", "gt": 12},
        "rule[1]: never reached: whenever it holds, rule[0] holds and decides first",
    ),
    (
        ["rule", 1, "when"],
        {"all": [BELOW, {"field": "vib.rms", "lt": 7}]},
        "rule[1].when: can never hold: it asks of one field what no value can give",
    ),
    # fields and limits
    (
        ["gates", 0, "require", "field"],
        "context.mod",
        "gates[0] 'running': unknown field 'context.mod'; did you mean 'context.mode'?",
    ),
    (
        ["gates", 1, "require", "field"],
        "temperature",
        "gates[1] 'oil_sane': unknown field 'temperature'; fields are <signal>.<statistic>, context.<name>, "
        "history.<name>, p.<state> or novelty",
    ),
    (
        ["gates", 1, "require", "between"],
        [0, 383],
        "gates[1] 'oil_sane': limit 383 for 'oil.last' lies outside its range [-20, 120]; check the unit",
    ),
    (
        ["gates", 1, "require"],
        {"field": "p.worn", "lt": 90},
        "gates[1] 'oil_sane': limit 90 for 'p.worn' lies outside its range [0, 1]; check the unit",
    ),
    (
        ["gates", 1, "require"],
        {"field": "context.load", "lt": 120},
        "gates[1] 'oil_sane': limit 120 for 'context.load' lies outside its range [0, 110]; check the unit",
    ),
    (
        ["gates", 0, "require"],
        {"field": "context.mode", "in": ["runn"]},
        "gates[0] 'running': unknown value of context.mode 'runn'; did you mean 'run'?",
    ),
    (
        ["gates", 0, "require"],
        {"field": "context.mode", "gt": 1},
        "gates[0] 'running': 'context.mode' is one of ['clean', 'run', 'setup']; use in or not_in",
    ),
    (
        ["gates", 0, "require"],
        {"field": "context.shift", "in": ["late"]},
        "gates[0] 'running': unknown value of context.shift 'late'; known: early, night, none",
    ),
    (
        ["gates", 0, "require"],
        {"field": "vib.rms", "in": ["high"]},
        "gates[0] 'running': 'vib.rms' is a number; use gt, ge, lt, le or between",
    ),
    (
        ["gates", 0, "require"],
        {"any": [{"all": [{"field": "vib.rms", "gtt": 7}]}]},
        "gates[0].require.any[0].all[0].gtt: unknown key; did you mean 'gt'?",
    ),
    (
        ["gates", 0, "require"],
        {"not": {"field": "vib.rms", "gt": math.nan}},
        "gates[0].require.not.gt: expected a finite number; found nan",
    ),
    (
        ["gates", 0, "require"],
        {"all": []},
        "gates[0].require.all: Tuple should have at least 1 item after validation, not 0",
    ),
    # gates
    (
        ["gates", 0, "actions"],
        ["slwo"],
        "gates[0] 'running'.actions: unknown action 'slwo'; did you mean 'slow'?",
    ),
    (["human"], GONE, "gates[3] 'few': otherwise: ask needs 'human' (cost, delay_s, reliability)"),
    (
        ["gates", 3, "name"],
        "model_knows",
        "gates[3] 'model_knows': the name is kept for the gate on 'novelty'; choose another",
    ),
    (
        ["signals", "novelty"],
        press_guard()["signals"]["oil"],
        "signals.novelty: the name is reserved for fields of that kind; choose another",
    ),
    (
        ["history", "trend", "of"],
        "novelty",
        "history.trend.of: history is kept over features; 'novelty' is none",
    ),
    (
        ["gates", 3],
        {"name": "again", "min_interval_s": 60},
        "gates[3] 'again': checks the same as 'calm_down'; drop one of them",
    ),
    (
        ["gates", 1, "require"],
        {"all": [{"field": "oil.last", "gt": 50}, {"field": "oil.last", "lt": 50}]},
        "gates[1] 'oil_sane': can never hold: it asks of one field what no value can give",
    ),
    # recovery, autonomy, policy
    (
        ["recovery"],
        "stop",
        "recovery: 'stop' is irreversible; what is done in doubt must be reversible",
    ),
    (["recovery"], "halt", "recovery: unknown action 'halt'; known: run, slow, stop"),
    (
        ["autonomy", "actions"],
        {"stopp": "confirm"},
        "autonomy.actions.stopp: unknown action 'stopp'; did you mean 'stop'?",
    ),
    (
        ["policy"],
        {"kind": "false_alarm_budget"},
        "policy.alarms_per_day: missing; a false_alarm_budget needs to know how many are bearable",
    ),
    (
        ["policy", "prevalence"],
        {"broken": 0.1},
        "policy.prevalence.broken: unknown state 'broken'; known: healthy, worn",
    ),
    (
        ["actions", "run", "command"],
        {"speed": 1},
        "actions.run: a command needs an actuator",
    ),
    # signals, history, context
    (
        ["signals", "vib", "sampling"],
        {"kind": "regulr", "rate_hz": 1},
        "signals.vib.sampling: Input tag 'regulr' found using 'kind' does not match any of the expected "
        "tags: 'regular', 'on_change'",
    ),
    (["signals", "vib", "sampling", "rate_hz"], GONE, "signals.vib.sampling.rate_hz: missing"),
    (
        ["signals", "vib", "sampling", "rate_hz"],
        1e7,
        "window: one window of every signal holds 100000001 values; a record has room for 8388608. "
        "Shorten length_s or lower a rate",
    ),
    (
        ["history", "trend", "of"],
        "context.load",
        "history.trend.of: history is kept over features; 'context.load' is none",
    ),
    (
        ["history", "trend", "above"],
        7,
        "history.trend: 'above' goes with kind: time_since, and only there",
    ),
    (
        ["context", "mode", "unit"],
        "1",
        "context.mode: give either unit (a number) or values (a choice)",
    ),
    (
        ["site", "shifts", 0, "from"],
        360,
        "site.shifts[0].from: Input should be a valid string; found 360. Put it in quotes if it is meant "
        "as text",
    ),
    (
        ["site", "shifts", 0, "to"],
        "24:00",
        r"site.shifts[0].to: String should match pattern '^([01]\d|2[0-3]):[0-5]\d$'; found '24:00'",
    ),
    # outcome
    (
        ["outcome", "sources", "maintenance", "reports"],
        ["healthy"],
        "states.worn: never observable; no outcome source reports it and silence does not mean it. "
        "Add it to a source's 'reports', or drop the state",
    ),
    (
        ["outcome", "sources", "maintenance", "reports"],
        ["worn", "worm"],
        "outcome.sources.maintenance.reports: unknown state 'worm'; did you mean 'worn'?",
    ),
    (
        ["outcome", "silence"],
        "fine",
        "outcome.silence: unknown state 'fine'; known: healthy, worn",
    ),
    (
        ["outcome", "maturity_s"],
        60,
        "outcome: maturity_s lies before horizon_s: a report may come until the horizon",
    ),
]


@pytest.mark.parametrize(("path", "value", "problem"), WRONG, ids=lambda x: x if isinstance(x, str) else "")
def test_each_mistake_is_named_with_its_place_and_a_hint(path, value, problem):
    """One mistake gives the one line that says where it is, what is wrong and what may be meant."""
    lines = problems(spoil(path, value))
    assert problem in lines
    excused = ("states.healthy: never observable", "rule[1]: never reached")
    assert [x for x in lines if x != problem and not x.startswith(excused)] == []


def test_the_word_ask_is_taken():
    """An action may not be called like the policy's question."""
    document = press_guard()
    document["actions"]["ask"] = {}
    document["costs"]["ask"] = {"healthy": 0, "worn": 0}
    assert problems(document) == [
        "actions.ask: 'ask' is what the policy says when a human shall decide; choose another name"
    ]


def test_all_problems_are_said_at_once():
    """A file with several mistakes is not corrected one run at a time."""
    document = spoil(["recovery"], "stop")
    del document["costs"]["run"]["worn"]
    document["gates"][1]["require"]["field"] = "oil.lst"
    assert [line.split(":")[0] for line in problems(document)] == [
        "costs.run.worn",
        "recovery",
        "gates[1] 'oil_sane'",
    ]


@pytest.mark.parametrize("document", [None, [], "format: 1", 5])
def test_something_other_than_a_mapping_is_refused(document):
    """A file that holds no mapping says what was expected."""
    with pytest.raises(DecisionFileError, match="expected a mapping with format: 1; found"):
        parse_decision(document)


@pytest.mark.parametrize("number", [None, 0, 2, "1", 1.5])
def test_another_format_is_refused_before_anything_else_is_read(number):
    """A number this version does not know leads to one line, not to a hundred."""
    with pytest.raises(DecisionFileError, match=r"format; expected 1; found .*reads format 1"):
        parse_decision({"format": number, "whatever": 1})


def test_a_condition_nested_beyond_reason_is_refused():
    """Deep nesting ends in an error of ours, not in a crash."""
    deep = BELOW
    for _ in range(5000):
        deep = {"not": deep}
    assert "nested more than 64 levels deep" in problems(spoil(["gates", 0, "require"], deep))[0]


def test_costs_may_be_unknown():
    """A team that does not know its costs yet can still deploy its rule."""
    decision = parse_decision(spoil(["costs"], "unknown"))
    assert decision.costs == "unknown"


def test_reading_does_not_change_the_document():
    """The caller's data stays as it was."""
    document = press_guard()
    before = copy.deepcopy(document)
    parse_decision(document)
    assert document == before


def test_the_identity_ignores_order_defaults_and_number_spelling():
    """Two files that say the same have the same digest."""
    plain = parse_decision(press_guard())
    turned = dict(reversed(press_guard().items()))
    turned["needs"] = {"upload": "features", "deadline_ms": 200.0}
    turned["format"] = 1.0
    turned["policy"] = {}
    assert parse_decision(turned).digest == plain.digest


def test_any_change_of_meaning_changes_the_identity():
    """A cost, a limit, a gate's order or a name: each makes another decision."""
    digests = {parse_decision(press_guard()).digest}
    for path, value in [
        (["costs", "run", "worn"], 901),
        (["rule", 0, "when", "gt"], 9.5),
        (["title"], "x"),
        (["gates"], press_guard()["gates"][::-1]),
        (["revision"], 2),
    ]:
        digests.add(parse_decision(spoil(path, value)).digest)
    assert len(digests) == 6


def test_the_canonical_form_reads_back_to_the_same_decision():
    """What a bundle carries is the decision itself, nothing lost."""
    import json

    decision = parse_decision(press_guard())
    again = parse_decision(json.loads(decision.canonical()))
    assert again == decision
    assert again.canonical() == decision.canonical()


def test_the_identity_of_format_1_stays_what_it_was():
    """Code may change; the digest of a file that was signed does not."""
    assert parse_decision(press_guard()).digest == (
        "sha256:9e2146eb5259855255d34946260824fefc0fcef22fe09d792039cee050b01eee"
    )


def test_a_decision_knows_what_it_needs():
    """Features, samples and modes follow from the file alone."""
    decision = parse_decision(press_guard())
    assert decision.features() == ("oil.last", "vib.max", "vib.rms")
    assert (decision.samples("vib"), decision.samples("oil")) == (1000, 1)
    assert [decision.mode(a) for a in ("run", "slow", "stop")] == ["act", "act", "confirm"]
    assert decision.fields_read() == ("vib.rms", "oil.last", "context.mode", "vib.max")


def test_a_parsed_decision_cannot_be_changed():
    """Values are frozen after the border."""
    decision = parse_decision(press_guard())
    with pytest.raises(ValueError, match="frozen"):
        decision.revision = 2


def test_the_schema_is_exported_for_editors():
    """The JSON Schema names its dialect, forbids unknown keys and knows every part of the file."""
    schema = decision_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert set(press_guard()) <= set(schema["properties"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["costs", "run", "worn"], 1e16),
        (["revision"], 2**31 + 1),
        (["window", "length_s"], 1e-9),
        (["window", "every_s"], 1e300),
        (["outcome", "horizon_s"], 1e300),
        (["title"], "a\x1b[31m"),
        (["states"], {f"s{i}": {} for i in range(65)}),
    ],
)
def test_what_no_honest_file_says_is_refused(path, value):
    """Bounds on money, spans, counts and texts keep every later sum finite."""
    assert any(line.startswith(".".join(path)) for line in problems(spoil(path, value)))


def test_at_most_fifty_problems_are_listed():
    """A file full of mistakes gives a page, not a flood."""
    with pytest.raises(DecisionFileError, match="and 50 more") as caught:
        parse_decision(press_guard() | {f"zebra{i}": 1 for i in range(100)}, "press.yaml")
    assert len(str(caught.value).splitlines()) == 52
