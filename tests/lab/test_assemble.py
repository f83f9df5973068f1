"""Examples out of a lake and out of frames: the desk sees what the device saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.desk
np = pytest.importorskip("numpy")
pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
pytest.importorskip("torch")
pytest.importorskip("deltalake")

from aiotkit.core.decision import Decision, parse_decision  # noqa: E402
from aiotkit.core.errors import DataError  # noqa: E402
from aiotkit.core.history import history_values, update_history  # noqa: E402
from aiotkit.core.records import (  # noqa: E402
    Decided,
    DecisionInput,
    Draw,
    EngineState,
    decision_payload,
    pack_windows,
)
from aiotkit.lab.assemble import Where, assemble, from_frames  # noqa: E402

START_US = 1_767_222_000_000_000
AS_OF_US = START_US + 40 * 86_400_000_000
NAMES = ("vib.rms", "vib.max", "oil.last")


@pytest.fixture
def decision(document: dict[str, Any]) -> Decision:
    """The pump decision with history, samples that may be bad, and a window of ten samples."""
    document["history"] = {
        "level": {"of": "vib.rms", "kind": "ewma", "over_s": 3600},
        "since": {"of": "vib.max", "kind": "time_since", "over_s": 7200, "above": 4.0},
    }
    document["window"] |= {"max_bad_share": 0.2}
    return parse_decision(document)


def telemetry(hours: float = 6.0, *, seed: int = 3, pauses: bool = True) -> Any:
    """Rows of a pump as ``ingest`` gives them: a sample every 10 s with gaps, oil and context at times."""
    rng = np.random.default_rng(seed)
    at = START_US + np.arange(int(hours * 360)) * 10_000_000
    vib = rng.normal(0, 2, len(at)).round(3)
    keep = rng.random(len(at)) > 0.03
    if pauses:
        keep[400:520] = False  # 20 minutes of nothing: longer than a window
        vib[700:704] = 80.0  # out of range: four of ten samples
    rows: list[tuple[Any, ...]] = [(t, "vib", v, None) for t, v in zip(at[keep], vib[keep], strict=True)]
    for i in range(int(hours * 4)):
        when = START_US + i * 900_000_000 + int(rng.integers(0, 10**8))
        rows.append((when, "oil", float(rng.normal(50, 3)), None))
    for i in range(int(hours * 10)):
        when = START_US + i * 360_000_000
        if i % 7:
            rows.append((when, "mode", np.nan, ("production", "idle")[i % 2]))
        if i % 5:
            rows.append((when, "load", float(rng.uniform(0, 150)), None))
    frame = pd.DataFrame(rows, columns=["at_us", "name", "value", "word"]).assign(subject="pump-1", unit=None)
    return frame.sort_values(["name", "at_us"], ignore_index=True)


def put(lake: Any, rows: Any) -> None:
    """Telemetry into a lake."""
    at = pa.array(rows["at_us"].to_numpy(dtype=np.int64)).cast(pa.timestamp("us", tz="UTC"))
    columns = {n: pa.array(rows[n], pa.string()) for n in ("subject", "name", "word")}
    columns |= {"at": at, "value": pa.array(rows["value"], pa.float64(), from_pandas=True)}
    columns["source"] = pa.array(["test"] * len(rows))
    lake.append("telemetry", pa.table(columns))


def device(rows: Any, decision: Decision) -> list[tuple[DecisionInput, Any, dict[str, float]]]:
    """What a device makes of the same values as packets of 100 s: (input, features, history) a decision."""
    from aiotkit.bundle.inputs import InputChecks
    from aiotkit.edge.context import ContextCache
    from aiotkit.edge.sources import Packet, Samples
    from aiotkit.edge.windows import Assembler
    from aiotkit.lab.front import Front, compute_features

    assembler, cache, front = Assembler(decision), ContextCache(decision.context), Front(decision, NAMES)
    out: list[tuple[DecisionInput, Any, dict[str, float]]] = []
    state: dict[str, tuple[float, ...]] = {}
    rows = rows.sort_values("at_us", kind="stable")
    for lo in range(START_US, int(rows["at_us"].max()) + 10_000_000, 10_000_000):
        now = lo + 10_000_000
        mine = rows[(rows["at_us"] >= lo) & (rows["at_us"] < now)]
        vib = mine.loc[mine["name"] == "vib", "value"].to_numpy(dtype=np.float32)
        samples = {"vib": Samples(lo, 0.1, vib)} if len(vib) else {}
        points = tuple(
            ("oil", int(t), v) for t, v in mine.loc[mine["name"] == "oil", ["at_us", "value"]].values
        )
        said = mine[mine["name"].isin(["mode", "load"])]
        cache.feed(
            [(n, int(t), w if n == "mode" else v) for n, t, v, w in
             said[["name", "at_us", "value", "word"]].itertuples(index=False)], now,
        )  # fmt: skip
        for gathered in assembler.feed(Packet(now, samples, points)) if samples or points else []:
            given = DecisionInput("", now, gathered.end_us, gathered.windows, cache.readings(gathered.end_us),
                                  dict(gathered.faults))  # fmt: skip
            windows, _ = InputChecks(decision).windows(given)
            found = compute_features(front, {n: w[None] for n, w in windows.items()})[0]
            features = dict(zip(front.names, found.tolist(), strict=True))
            history = history_values(decision.history, state, gathered.end_us / 1e6)
            state = update_history(decision.history, state, features, gathered.end_us / 1e6)
            out.append((given, features, history))
    return out


def record(lake: Any, decision: Decision, taken: Any, *, windows: bool = True, features: Any = NAMES) -> None:
    """A device's decisions into a lake, as its journal brings them."""
    from aiotkit.bundle.inputs import InputChecks
    from aiotkit.core.canonical import digest
    from aiotkit.core.gates import Verdict
    from aiotkit.lake.assets import Assets, Assignment
    from aiotkit.lake.blobs import Blobs

    rows, blobs = [], {}
    for i, (given, found, history) in enumerate(taken):
        packed = pack_windows(given.windows)
        blobs[digest(packed)] = packed
        checks = InputChecks(decision)
        faults = checks.windows(given)[1] | checks.context(given)[1]
        decided = Decided(
            {n: found[n] for n in features}, history, None, {}, faults, "run", "", Verdict.ALLOW, (), "run",
            "", "run", "act", None, None, Draw(0.1, 0.9), Draw(1.0, 0.0), EngineState(),
        )  # fmt: skip
        payload = decision_payload(
            given, EngineState(), decided, window_digest=digest(packed), bundle="b",
            decision=(decision.id, 1), timing={},
        )  # fmt: skip
        rows.append(
            {"device": "edge-1", "journal_id": "j", "seq": 2 * i + 2, "type": "DECISION",
             "digest": "sha256:1", "length": len(payload), "head": "00", "withheld": False,
             "payload": payload.decode(),
             "decision_id": decision.id, "revision": 1, "at": given.now_us, "window": digest(packed),
             "in_force": "run", "verify_p": 0.1, "verify_hit": False}
        )  # fmt: skip
    table = pa.Table.from_pylist(rows)
    at = table["at"].cast(pa.timestamp("us", tz="UTC"))
    lake.append("decisions", table.set_column(table.column_names.index("at"), "at", at))
    Assets(lake).assign(Assignment("edge-1", "pump-1", START_US - 10**12), recorded_us=START_US)
    if windows:
        Blobs(lake).put(blobs)


def make_lake(folder: Path) -> Any:
    """An empty lake."""
    from aiotkit.lake.lake import Lake

    return Lake.create(folder)


@pytest.mark.parametrize("pauses", [False, True])
def test_desk_sees_what_the_device_saw(tmp_path: Path, decision: Decision, pauses: bool) -> None:
    """Windows, context and history cut from files equal those a device records of the same values."""
    rows = telemetry(pauses=pauses)
    on_device, on_files = make_lake(tmp_path / "a"), make_lake(tmp_path / "b")
    taken = device(rows, decision)
    record(on_device, decision, taken)
    put(on_files, rows)
    left = assemble(on_device, decision, names=NAMES, as_of_us=AS_OF_US, windows=True)
    right = assemble(on_files, decision, names=NAMES, as_of_us=AS_OF_US, windows=True)
    assert len(left) == len(taken) > 20
    # a device that hears only of oil for long decides too, with nothing to look at; files do not ask it
    blind = ~left.rows["at_us"].isin(right.rows["at_us"]).to_numpy(dtype=bool)
    assert blind.sum() == (1 if pauses else 0)
    assert np.isnan(left.windows["vib"][blind]).all()
    left = left.take(~blind)
    assert left.rows["at_us"].tolist() == right.rows["at_us"].tolist()
    for name in decision.signals:
        np.testing.assert_array_equal(left.windows[name], right.windows[name], err_msg=name)
    assert left.columns == right.columns
    for i, name in enumerate(left.columns):
        np.testing.assert_allclose(right.x[:, i], left.x[:, i], rtol=1e-6, err_msg=name)
    assert np.isnan(left.x).any(axis=0).sum() >= 4  # gaps, faults and old context are among them
    assert set(left.rows["key"].str.count("/")) == {2}
    assert set(right.rows["key"]) == {""}


def files_lake(tmp_path: Path, rows: Any) -> Any:
    """A lake with telemetry only."""
    lake = make_lake(tmp_path / "files")
    put(lake, rows)
    return lake


def test_recorded_features_do_where_windows_did_not_leave(tmp_path: Path, decision: Decision) -> None:
    """Without raw windows the features of the records count; names that no device recorded are NaN."""
    lake, taken = make_lake(tmp_path / "a"), device(telemetry(), decision)
    record(lake, decision, taken, windows=False, features=("vib.rms", "oil.last"))
    found = assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US)
    rms = found.x[:, found.columns.index("vib.rms")]
    assert rms.tolist() == pytest.approx([f["vib.rms"] for _, f, _ in taken], rel=1e-6, nan_ok=True)
    assert np.isfinite(rms).sum() > 20
    assert np.isnan(found.x[:, found.columns.index("vib.max")]).all()


def test_words_of_ones_own_are_computed_here_not_taken_from_records(
    tmp_path: Path, document: dict[str, Any], decision: Decision
) -> None:
    """A device may have had another file: windows count, records of such a name and its history do not."""
    from worlds.own_words import words_file

    from aiotkit.lab.examples import OWN_WORDS
    from aiotkit.lab.own_words import own_words

    own, words = "vib.x_swing", own_words(words_file(tmp_path))
    taken = [(g, f | {own: 99.0}, h | {"swung": 99.0}) for g, f, h in device(telemetry(), decision)]
    document["history"] |= {"swung": {"of": own, "kind": "ewma", "over_s": 3600}}
    decision = parse_decision(document)
    for kept in (True, False):
        lake = make_lake(tmp_path / f"kept-{kept}")
        record(lake, decision, taken, windows=kept, features=(*NAMES, own))
        found = assemble(lake, decision, names=(*NAMES, own), as_of_us=AS_OF_US, words=words)
        for column in (own, "history.swung"):
            values = found.x[:, found.columns.index(column)]
            assert np.isfinite(values).any() == kept, column
            assert not (values == 99).any(), column
        assert found.sources[OWN_WORDS] == words.digest
    document["history"].pop("swung")
    without = assemble(lake, parse_decision(document), names=NAMES, as_of_us=AS_OF_US, words=words)
    assert OWN_WORDS not in without.sources


def test_nothing_usable_is_an_error_that_says_what_to_do(tmp_path: Path, decision: Decision) -> None:
    """Records without any wanted feature, and a lake without anything, are refused with the next step."""
    lake = make_lake(tmp_path / "a")
    with pytest.raises(DataError, match=r"nothing to learn from.*aiotkit ingest"):
        assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US)
    record(lake, decision, device(telemetry(), decision), windows=False, features=())
    with pytest.raises(DataError, match=r"no feature of any of them is known.*upload: raw"):
        assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US)


def test_a_device_goes_before_files(tmp_path: Path, decision: Decision) -> None:
    """Where a device decided, its record is the row; before and after it, files give theirs."""
    rows = telemetry(12.0, pauses=False)
    lake = files_lake(tmp_path, rows)
    until = START_US + 6 * 3_600_000_000
    record(lake, decision, device(rows[rows["at_us"] < until], decision))
    found = assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US)
    at = found.rows["at_us"].to_numpy()
    assert (np.diff(at) == 600_000_000).all()
    acted = (found.rows["key"] != "").to_numpy()
    assert acted.tolist() == (at <= until).tolist()
    assert (found.rows["in_force"] == "run").tolist() == acted.tolist()
    assert 0 < acted.sum() < len(acted)


def test_labels_come_from_outcomes_and_silence(tmp_path: Path, decision: Decision) -> None:
    """A report within the horizon labels what came before it; what is too young is pending."""
    rows = telemetry(72.0, pauses=False)
    told = pd.DataFrame(
        {"subject": ["pump-1"], "state": ["broken"], "at": ["2026-01-02T01:00:00Z"], "source": ["crew"]}
    )
    found = from_frames(ingested(rows), told, decision, names=NAMES)
    when = pd.Timestamp("2026-01-02T01:00:00Z").value // 1000
    at = found.rows["at_us"]
    reached = (at <= when) & (at >= when - 86_400_000_000)
    young = at + 172_800_000_000 > int(rows["at_us"].max())
    assert set(found.rows.loc[reached & ~young, "state"]) == {"broken"}
    assert set(found.rows.loc[~reached & ~young, "state"]) == {"ok"}
    assert set(found.rows.loc[young, "status"]) == {"pending"}
    assert len(found.labelled()) == (~young).sum() > 100


def ingested(rows: Any) -> Any:
    """Rows as if they had been read."""
    from aiotkit.lab.ingest import Ingested, IngestReport

    report = IngestReport("rows", 0, 0, 0, 0, {}, {}, 1, None, None, 0, (), ())
    return Ingested(rows.assign(row=1), rows.iloc[:0], report, "sha256:0")


def test_frames_and_lake_give_the_same_examples(tmp_path: Path, decision: Decision) -> None:
    """Without a lake the same values, rows and labels come out as with one."""
    rows = telemetry(pauses=True)
    lake = files_lake(tmp_path, rows)
    left = assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US, windows=True)
    right = from_frames(ingested(rows), None, decision, names=NAMES, as_of_us=AS_OF_US, windows=True)
    np.testing.assert_array_equal(left.x, right.x)
    pd.testing.assert_frame_equal(left.rows, right.rows)
    np.testing.assert_array_equal(left.windows["vib"], right.windows["vib"])
    left.save(tmp_path / "saved")
    assert type(left).load(tmp_path / "saved").digest == left.digest


def test_where_and_as_of_bound_what_is_seen(tmp_path: Path, decision: Decision) -> None:
    """Only the span and subjects asked for; nothing from after the instant that is known."""
    rows = pd.concat([telemetry(pauses=False), telemetry(pauses=False, seed=5).assign(subject="pump-2")])
    lake = files_lake(tmp_path, rows)
    hour = 3_600_000_000
    asked = Where(("pump-2",), START_US + hour, START_US + 3 * hour)
    found = assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US, where=asked)
    assert set(found.rows["subject"]) == {"pump-2"}
    assert found.rows["at_us"].between(START_US + hour, START_US + 3 * hour - 1).all()
    assert len(found) == 12
    early = assemble(lake, decision, names=NAMES, as_of_us=START_US + hour)
    assert early.rows["at_us"].max() <= START_US + hour
    with pytest.raises(DataError, match=r"no instant at which it could have been taken"):
        assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US, where=Where(("pump-9",)))


def test_devices_that_watched_nothing_teach_nothing(tmp_path: Path, decision: Decision) -> None:
    """Decisions from before the device was put on a machine are left out."""
    from aiotkit.lake.assets import Assets

    lake, taken = make_lake(tmp_path / "a"), device(telemetry(), decision)
    record(lake, decision, taken)
    Assets(lake).retire("edge-1", taken[9][0].now_us, recorded_us=AS_OF_US)
    assert len(assemble(lake, decision, names=NAMES, as_of_us=AS_OF_US)) == 9


def test_batches_do_not_show_in_the_result(decision: Decision) -> None:
    """Windows cut in small pieces equal those cut at once, also where a sensor is stuck."""
    from aiotkit.lab.cut import Cutter
    from aiotkit.lab.schedule import due
    from aiotkit.lab.telemetry import gather

    document = decision.model_dump(mode="json", by_alias=True, exclude_defaults=True) | {"format": 1}
    document["window"] = {"length_s": 800, "every_s": 100}
    wide = parse_decision(document)
    rows = telemetry(pauses=False)
    stuck = (rows["name"] == "vib") & (rows["at_us"] > START_US + 5_000_000_000)
    rows.loc[stuck & (rows["at_us"] < START_US + 9_000_000_000), "value"] = 1.0
    at = rows["at_us"].to_numpy(dtype=np.int64)
    table = pa.table(
        {n: pa.array(rows[n], pa.string()) for n in ("subject", "name", "word")}
        | {"at": pa.array(at).cast(pa.timestamp("us", tz="UTC")), "value": rows["value"].to_numpy()}
    )
    heard = gather([table], wide)
    instants = due(heard, wide)
    cutter = Cutter(heard, wide, instants)
    whole = cutter.cut(0, len(instants))["vib"]
    parts = [cutter.cut(lo, min(lo + 7, len(instants)))["vib"] for lo in range(0, len(instants), 7)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    assert 0 < np.isnan(whole).all(axis=1).sum() < len(whole)
