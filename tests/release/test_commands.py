from __future__ import annotations

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from worlds.bundles import DATA, signed_archive, trust_and_keys, unsigned_bundle

pytestmark = pytest.mark.desk
pytest.importorskip("typer")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run ``aiotkit`` in an empty folder: (exit code, stdout, stderr)."""
    from aiotkit.cli.main import main

    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def ok(result: tuple[int, str, str]) -> str:
    code, out, err = result
    assert (code, err) == (0, ""), err
    return out


def test_keys_and_trust_from_nothing(run: Any, tmp_path: Path) -> None:
    """Two commands give private keys only their owner reads, and a trust file that parses."""
    from aiotkit.bundle.keys import SigningKey
    from aiotkit.bundle.trust import parse_trust

    for name in ("ann", "bob", "shift", "hq"):
        assert name in ok(run("keys", "new", f"{name}.pem"))
    assert stat.S_IMODE((tmp_path / "ann.pem").stat().st_mode) == 0o600
    words = (
        "keys trust trust.json --release ann.pub --release bob.pub --operator shift.pub --collector hq.pub"
    )
    told = json.loads(ok(run(*words.split(), "--json")))
    trust = parse_trust((tmp_path / "trust.json").read_bytes())
    assert trust.role("release").threshold == 2 == told["roles"]["release"]["threshold"]
    assert trust.role("operator").threshold == 1
    assert SigningKey.load(tmp_path / "hq.pem").public.key_id in trust.role("collector").key_ids
    assert trust.keys[SigningKey.load(tmp_path / "bob.pem").public.key_id].comment == "bob"


def test_a_key_is_never_replaced(run: Any, tmp_path: Path) -> None:
    """Making a key under a name that exists fails and leaves both files as they were."""
    ok(run("keys", "new", "ann.pem"))
    before = (tmp_path / "ann.pem").read_bytes(), (tmp_path / "ann.pub").read_bytes()
    code, _, err = run("keys", "new", "ann.pem")
    assert code == 3
    assert "exists already" in err
    assert ((tmp_path / "ann.pem").read_bytes(), (tmp_path / "ann.pub").read_bytes()) == before
    (tmp_path / "ann.pub").unlink()
    assert run("keys", "new", "ann.pem")[0] == 3
    assert not (tmp_path / "ann.pub").exists()


@pytest.mark.parametrize(
    ("threshold", "code", "words"),
    [
        ("release=3", 1, "can never be reached by 1 keys"),
        ("boss=1", 2, "not ROLE=N"),
        ("release", 2, "ROLE=N"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused(run: Any, threshold: str, code: int, words: str) -> None:
    """A threshold out of reach, an unknown role and a missing number are errors, and no file is written."""
    ok(run("keys", "new", "ann.pem"))
    found, _, err = run("keys", "trust", "t.json", "--release", "ann.pub", "--threshold", threshold)
    assert found == code
    assert words in err
    assert not Path("t.json").exists()


def prepared(folder: Path) -> None:
    """Trust, two keys and the unsigned test bundle."""
    trust, (one, two), _, _ = trust_and_keys()
    (folder / "trust.json").write_bytes(trust.canonical())
    one.save(folder / "one.pem")
    two.save(folder / "two.pem")
    (folder / "b.aiot").write_bytes(unsigned_bundle(3).archive())


def test_a_bundle_is_built_from_a_decision_file(run: Any, tmp_path: Path) -> None:
    """``bundle build`` writes what the library builds: the committed test bundle, byte for byte identity."""
    pytest.importorskip("torch")
    decision = str(DATA / "decision.yaml")
    told = json.loads(ok(run("bundle", "build", decision, "--counter", "1", "--out", "b.aiot", "--json")))
    inspected = json.loads(ok(run("bundle", "inspect", "b.aiot", "--json")))
    assert inspected["digest"] == told["digest"]
    assert inspected["manifest"]["site"] == ["hall-1"]
    assert inspected["signed_by"] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.aiot"]


def test_sign_and_verify(run: Any, tmp_path: Path) -> None:
    """Unsigned and half signed bundles are refused with exit code 1, a signed one is valid."""
    prepared(tmp_path)
    verify = ("bundle", "verify", "b.aiot", "--trust", "trust.json")
    assert run(*verify)[0] == 1
    ok(run("bundle", "sign", "b.aiot", "--key", "one.pem"))
    code, _, err = run(*verify)
    assert code == 1
    assert "2 of 2 trusted keys; found 1" in err
    ok(run("bundle", "sign", "b.aiot", "--key", "two.pem", "--out", "signed.aiot"))
    told = json.loads(ok(run("bundle", "verify", "signed.aiot", "--trust", "trust.json", "--json")))
    assert told["valid"] is True
    assert told["golden_cases"] == 47
    assert (tmp_path / "signed.aiot").read_bytes() == signed_archive(3)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--site", "hall-2"], "site"),
        (["--decision", "other"], "decision"),
        (["--floor", "4"], "floor"),
    ],
)
def test_verify_asks_for_the_place_when_told(
    run: Any, tmp_path: Path, options: list[str], words: str
) -> None:
    """A valid bundle for another site or decision, or below the floor, gets exit code 1."""
    prepared(tmp_path)
    (tmp_path / "b.aiot").write_bytes(signed_archive(3))
    ok(run("bundle", "verify", "b.aiot", "--trust", "trust.json", "--site", "hall-1", "--floor", "3"))
    code, out, _ = run("bundle", "verify", "b.aiot", "--trust", "trust.json", *options, "--json")
    assert code == 1
    assert words in json.loads(out)["error"]


def test_inspect_shows_files_of_a_bundle(run: Any, tmp_path: Path) -> None:
    """What is in a bundle can be read without unpacking it; a misspelt file gets a hint."""
    prepared(tmp_path)
    assert "decision 'bearing-test' revision 1, release 3" in ok(run("bundle", "inspect", "b.aiot"))
    assert json.loads(ok(run("bundle", "inspect", "b.aiot", "--file", "card.json")))["kind"] == "rule only"
    code, _, err = run("bundle", "inspect", "b.aiot", "--file", "cart.json")
    assert code == 1
    assert "did you mean 'card.json'?" in err


def journaled(folder: Path, *, changed: bool = False, decisions: int = 12) -> bytes:
    """A device's journal with real decisions of the test bundle; its bundle's digest is in the records."""
    from worlds.bundles import decision_of

    from aiotkit.bundle.engine import Engine
    from aiotkit.core.canonical import digest
    from aiotkit.core.records import EngineState, RecordType, decision_payload, pack_windows
    from aiotkit.edge.disk import RealDisk
    from aiotkit.edge.journal import Journal
    from aiotkit.release.cases import golden_cases

    bundle = unsigned_bundle(3)
    engine, state = Engine(bundle.files), EngineState()
    with Journal.open(RealDisk(folder), "pump-1", journal_id="00aa00aa00aa00aa") as journal:
        for i, case in enumerate(golden_cases(decision_of())[:decisions]):
            decided, timing = engine.decide(state, case.given)
            window = pack_windows(case.given.windows)
            journal.append(RecordType.WINDOW, window)
            payload = decision_payload(
                case.given,
                state,
                decided,
                window_digest=digest(window),
                bundle=bundle.digest,
                decision=("bearing-test", 1),
                timing=timing,
            )
            if changed and i == 5:
                payload = payload.replace(b'"final":"run"', b'"final":"stop"', 1)
            journal.append(RecordType.DECISION, payload)
            state = decided.state
            journal.commit()
    return bundle.archive()


def test_replay_checks_every_decision_of_a_journal(run: Any, tmp_path: Path) -> None:
    """All decisions of a device's state folder, or of its journal folder, replay bit for bit."""
    Path("b.aiot").write_bytes(journaled(tmp_path / "state"))
    for folder in ("state", "state/journal"):
        told = json.loads(ok(run("replay", "--journal", folder, "--bundle", "b.aiot", "--json")))
        assert (told["checked"], told["identical"], told["different"]) == (12, 12, 0)
        assert told["not_replayable"] == {}


def test_T10_replay_finds_a_decision_that_was_changed(run: Any, tmp_path: Path) -> None:
    """A journal whose chain is sound but whose record says another action: exit code 1, named."""
    Path("b.aiot").write_bytes(journaled(tmp_path / "state", changed=True))
    code, out, _ = run("replay", "--journal", "state", "--bundle", "b.aiot", "--json")
    told = json.loads(out)
    assert (code, told["checked"], told["different"]) == (1, 12, 1)
    (differences,) = told["differences"].values()
    assert list(told["differences"]) == ["pump-1/00aa00aa00aa00aa/12"]
    assert differences == [{"where": "out.final", "recorded": "stop", "replayed": "run"}]
    code, out, _ = run("replay", "--journal", "state", "--bundle", "b.aiot")
    assert code == 1
    assert "out.final: recorded 'stop', replayed 'run'" in out


def test_replay_without_the_right_bundle_is_no_success(run: Any, tmp_path: Path) -> None:
    """When no record can be replayed the answer is no, and says what is missing."""
    journaled(tmp_path / "state")
    Path("other.aiot").write_bytes(signed_archive(4))
    code, out, _ = run("replay", "--journal", "state", "--bundle", "other.aiot")
    assert code == 1
    assert "not replayable: 12 (bundle not at hand)" in out
    assert "nothing could be replayed" in out


def test_J7_replay_says_that_records_are_damaged(run: Any, tmp_path: Path) -> None:
    """A journal with a damaged group: the rest is checked, the damage is told, exit code 1."""
    Path("b.aiot").write_bytes(journaled(tmp_path / "state"))
    (segment,) = (tmp_path / "state/journal").glob("*.seg")
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    code, out, _ = run("replay", "--journal", "state", "--bundle", "b.aiot", "--json")
    told = json.loads(out)
    assert code == 1
    assert told["different"] == 0
    assert told["identical"] == 11
    assert len(told["damage"]) == 1


def test_replay_of_a_lake(run: Any, tmp_path: Path) -> None:
    """What was delivered replays from the lake; decisions whose window stayed behind are counted so."""
    pytest.importorskip("deltalake")
    from aiotkit.edge.disk import RealDisk
    from aiotkit.edge.journal import Journal
    from aiotkit.edge.uplink import FolderUplink
    from aiotkit.fleet.collector import Collector
    from aiotkit.lake.lake import Lake

    trust, _, _, collector = trust_and_keys()
    for upload in ("raw", "features"):
        place = tmp_path / upload
        (place / "inbox").mkdir(parents=True)
        Path("b.aiot").write_bytes(journaled(place / "state"))
        with Journal.open(RealDisk(place / "state"), "pump-1") as journal:
            uplink = FolderUplink(place / "inbox", journal, trust, upload)  # type: ignore[arg-type]
            while uplink.step(flush=True):
                pass
        lake = Lake.create(place / "lake")
        assert Collector(lake, place / "inbox", collector).collect_once().records == 24
        told = json.loads(ok(run("replay", "--lake", str(place / "lake"), "--bundle", "b.aiot", "--json")))
        withheld = told["not_replayable"].get("window withheld", 0)
        assert (withheld > 0) is (upload == "features")
        assert (told["checked"], told["different"], told["identical"]) == (12, 0, 12 - withheld)


def test_replay_wants_one_place_to_look_at(run: Any, tmp_path: Path) -> None:
    """Neither or both of journal and lake is a usage error; a folder that is none is said to be."""
    prepared(tmp_path)
    assert run("replay", "--bundle", "b.aiot")[0] == 2
    assert run("replay", "--bundle", "b.aiot", "--journal", "x", "--lake", "y")[0] == 2
    code, _, err = run("replay", "--bundle", "b.aiot", "--journal", "nowhere")
    assert code == 3
    assert "expected a folder" in err


def test_replay_in_a_fresh_process(tmp_path: Path) -> None:
    """The whole check in a process of its own gives the same answer, quietly."""
    (tmp_path / "b.aiot").write_bytes(journaled(tmp_path / "state"))
    code = "from aiotkit.cli.main import main; raise SystemExit(main())"
    words = ["replay", "--journal", "state", "--bundle", "b.aiot"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "12 decisions: 12 identical, 0 different\n"
    assert done.stderr == ""
