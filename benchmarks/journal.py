"""How many decisions a device can make durable, and how long one waits for it.

Records of real size (a decision record, by digest) and of 200 bytes, 256 to a commit, hash chain included.
Beside it in the same run, in turns, on the same folder's file system: SQLite (WAL, synchronous=FULL) in
the same batches, and the floor, append + fdatasync of the same payloads with no structure at all. Then
records arriving at 10,000 a second on a schedule: the time from a record's due moment until it is durable
(waiting behind earlier commits counts).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import FIXTURES, arguments, interleave, median_ratio, percentiles, progress, report

from aiotkit.core.records import RecordType
from aiotkit.edge.disk import RealDisk
from aiotkit.edge.journal import Journal
from aiotkit.edge.journal_verify import verify_folder

RECORD_SHA256 = "d917782249865d6029b39c279c51cb04fbc381670ee91130c6387ed500040f7b"
GROUP = 256
RATE_HZ = 10_000
Write = Callable[[list[bytes]], None]


def real_record() -> bytes:
    """The pinned decision record."""
    record = (FIXTURES / "decision_record.json").read_bytes()
    found = hashlib.sha256(record).hexdigest()
    if found != RECORD_SHA256:
        raise SystemExit(f"decision_record.json: expected sha256 {RECORD_SHA256}, found {found}")
    return record


def open_journal(folder: Path) -> tuple[Write, Callable[[], None]]:
    """Our journal, as the agent uses it."""
    journal = Journal.open(RealDisk(folder), "bench", quota_bytes=4 << 30)

    def write(records: list[bytes]) -> None:
        for record in records:
            journal.append(RecordType.DECISION, record)
        journal.commit()

    return write, journal.close


def open_sqlite(folder: Path) -> tuple[Write, Callable[[], None]]:
    """SQLite with the same durability."""
    base = sqlite3.connect(folder / "journal.db", isolation_level=None)
    base.execute("PRAGMA journal_mode=WAL")
    base.execute("PRAGMA synchronous=FULL")
    base.execute("CREATE TABLE records (seq INTEGER PRIMARY KEY, type INTEGER, payload BLOB)")

    def write(records: list[bytes]) -> None:
        base.execute("BEGIN")
        base.executemany("INSERT INTO records (type, payload) VALUES (2, ?)", [(r,) for r in records])
        base.execute("COMMIT")

    return write, base.close


def open_append(folder: Path) -> tuple[Write, Callable[[], None]]:
    """The floor: the payloads one after the other."""
    handle = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(records: list[bytes]) -> None:
        os.write(handle, b"".join(records))
        os.fdatasync(handle)

    return write, lambda: os.close(handle)


PEERS = {"journal": open_journal, "sqlite": open_sqlite, "append": open_append}


def durable_per_s(peer: str, place: Path, record: bytes, groups: int) -> float:
    """Records a second, in groups, into a fresh folder."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        write, close = PEERS[peer](Path(folder))
        records = [record] * GROUP
        write(records)
        started = time.perf_counter()
        for _ in range(groups):
            write(records)
        took_s = time.perf_counter() - started
        close()
    return groups * GROUP / took_s


def paced_ms(peer: str, place: Path, record: bytes, seconds: float) -> list[float]:
    """Milliseconds from due to durable of each record; a commit takes whatever is due, at most a group."""
    waits: list[float] = []
    with tempfile.TemporaryDirectory(dir=place) as folder:
        write, close = PEERS[peer](Path(folder))
        write([record])
        total, done = int(seconds * RATE_HZ), 0
        started = time.perf_counter()
        while done < total:
            now = time.perf_counter() - started
            due = min(total, int(now * RATE_HZ), done + GROUP)
            if due == done:
                time.sleep(1 / RATE_HZ)
                continue
            write([record] * (due - done))
            durable = time.perf_counter() - started
            waits += [1e3 * (durable - (n + 1) / RATE_HZ) for n in range(done, due)]
            done = due
        close()
    return waits


def reopen(place: Path, record: bytes, groups: int) -> dict[str, float]:
    """Seconds to open a filled journal, MB a second of reading and of verifying it."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        write, close = open_journal(Path(folder))
        for _ in range(groups):
            write([record] * GROUP)
        close()
        started = time.perf_counter()
        journal = Journal.open(RealDisk(Path(folder)), "bench", quota_bytes=4 << 30)
        opened = time.perf_counter()
        megabytes = journal.usage.bytes / 1e6
        count = sum(1 for _ in journal.frames())
        read = time.perf_counter()
        if count != groups * GROUP or not verify_folder(RealDisk(Path(folder))).ok:
            raise SystemExit("the journal does not hold what was written")
        verified = time.perf_counter()
        journal.close()
    return {
        "open_s": opened - started,
        "open_of_mb": megabytes,
        "read_mb_per_s": megabytes / (read - opened),
        "verify_mb_per_s": megabytes / (verified - read),
    }


def main(options: argparse.Namespace) -> None:
    repeats, groups, seconds = (3, 20, 1.0) if options.quick else (9, 100, 10.0)
    records = {"": real_record(), "_200b": bytes(range(200))}
    place: Path = options.place
    figures: dict[str, float | int | None] = {}
    peers: dict[str, float | int] = {}
    for suffix, record in records.items():
        arms = {
            peer: (lambda peer=peer, record=record: durable_per_s(peer, place, record, groups))
            for peer in PEERS
        }
        found = interleave(arms, repeats)
        figures[f"durable_per_s{suffix}"] = statistics.median(found["journal"])
        figures[f"over_sqlite{suffix}"] = median_ratio(found["journal"], found["sqlite"])
        figures[f"over_append{suffix}"] = median_ratio(found["journal"], found["append"])
        for peer in PEERS:
            peers[f"{peer}_per_s{suffix}"] = statistics.median(found[peer])
    rounds = 1 if options.quick else 3
    for suffix, record in records.items():
        waits: dict[str, list[dict[str, float]]] = {peer: [] for peer in PEERS}
        for round_ in range(rounds):
            for peer in PEERS:
                progress(f"paced, round {round_ + 1}/{rounds}: {peer}")
                waits[peer].append(percentiles(paced_ms(peer, place, record, seconds), unit="ms"))
        progress("")
        for peer in PEERS:
            for name in waits[peer][0]:
                value = statistics.median(found[name] for found in waits[peer])
                if peer == "journal" and name in ("p50_ms", "p99_ms"):
                    figures[f"{name}_at_10k{suffix}"] = value
                else:
                    peers[f"{peer}_{name}_at_10k{suffix}"] = value
    figures |= reopen(place, records[""], 40 if options.quick else 400)
    targets = {"durable_per_s": "≥ 10000", "durable_per_s_200b": "≥ 10000", "p99_ms_at_10k": "< 20"}
    notes = {
        "record": f"{len(records[''])} bytes, sha256 {RECORD_SHA256[:12]}…; and 200 bytes",
        "method": f"groups of {GROUP}; medians of {repeats} interleaved rounds; paced {rounds}x{seconds:g} s",
        "peers": "SQLite and append store the payload alone: no hash chain",
    }
    report("journal", figures, peers=peers, targets=targets, notes=notes, options=options)


if __name__ == "__main__":
    parser = arguments(__doc__)
    parser.add_argument("--place", type=Path, default=None, help="folder on the disk to measure")
    main(parser.parse_args())
