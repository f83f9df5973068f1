"""``aiotkit collector`` collects, stops cleanly and keeps the books."""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys

import pytest

from aiotkit.bundle.keys import SigningKey

pytest.importorskip("deltalake")
pytest.importorskip("typer")
pytestmark = pytest.mark.desk

AIOTKIT = [
    sys.executable,
    "-c",
    "import sys; from aiotkit.cli.main import main; sys.exit(main())",
    "collector",
]


def call(*words):
    return subprocess.run([*AIOTKIT, *words], capture_output=True, text=True, timeout=60)


@pytest.fixture
def where(tmp_path, inbox):
    SigningKey.generate().save(tmp_path / "key.pem")
    return ["--lake", str(tmp_path / "lake"), "--inbox", str(inbox), "--key", str(tmp_path / "key.pem")]


def test_once_collects_and_reports_as_json(tmp_path, inbox, where, world):
    """One command creates the lake, collects what is there and tells it; the books then balance."""
    device = world.Device()
    device.decide(4)
    device.deliver(inbox, 1, 4)
    device.deliver(inbox, 7, 8)
    done = call("run", *where, "--create", "--once", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["records"], told["batches"]) == (4, 1)
    waits = {"device": "press-1", "journal_id": device.journal_id, "needed": 5, "found": 7}
    assert told["waiting"] == [waits]
    books = call("balance", "--lake", str(tmp_path / "lake"), "--device", "press-1")
    assert books.returncode == 0
    assert books.stdout == "press-1: 4 produced, 4 delivered, 0 dropped and told, 0 lost, 0 doubled\n"


def test_unbalanced_books_exit_with_1(lake, tmp_path, world):
    """A lake that lost a record makes the command answer no."""
    import pyarrow as pa

    row = {"device": "press-1", "journal_id": "j", "seq": 2, "type": "DECISION", "digest": "sha256:0"}
    row |= {"length": 1, "head": "00", "withheld": True}
    lake.append("decisions", pa.table({name: [value] for name, value in row.items()}))
    books = call("balance", "--lake", lake.uri, "--device", "press-1", "--json")
    assert books.returncode == 1
    assert json.loads(books.stdout)["press-1"]["lost"] == 1


def test_sigterm_finishes_the_round_and_leaves_with_0(inbox, where, world):
    """A service manager's stop is answered at once, cleanly, with the sum of what was done."""
    device = world.Device()
    device.decide(4)
    device.deliver(inbox, 1, 8)
    process = subprocess.Popen(
        [*AIOTKIT, "run", *where, "--create", "--every-s", "30"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], 30)[0]
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert out.splitlines()[-1].startswith("done: 8 records from 1 batches")


def test_wrong_place_is_told_in_words(tmp_path, where):
    """A lake that is not there is exit code 2 and says how to make it."""
    done = call("run", *where, "--once")
    assert done.returncode == 2
    assert "'collector run --create'" in done.stderr
