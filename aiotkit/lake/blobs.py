"""Bytes addressed by their digest, kept in pack files with an index in table ``blobs``.

A pack is written whole and durable before the rows that point into it, so the index never promises what
is not there. A pack is named after its content: writing it again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from aiotkit.core.canonical import digest
from aiotkit.core.errors import IntegrityError, LakeError
from aiotkit.lake.lake import Lake

FOLDER = "packs"


class Blobs:
    """The blobs of one lake."""

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def put(self, blobs: Mapping[str, bytes], *, transactions: Mapping[str, int] | None = None) -> None:
        """Keep bytes by digest, in one pack and one commit; watermarks move with the index rows.

        Raises:
            IntegrityError: a digest is not that of its bytes.
            LakeError: see ``Lake.append``.
        """
        for name, data in blobs.items():
            if digest(data) != name:
                raise IntegrityError("blob", expected=name, found=digest(data))
        rows = pa.table({"digest": [], "pack": [], "offset": [], "size": []})
        if blobs:
            pack, rows = make_pack(blobs)
            self._lake.store.write(f"{FOLDER}/{rows['pack'][0]}", pack)
        self._lake.append("blobs", rows, transactions=transactions)

    def find(self, digests: Iterable[str], *, version: int | None = None) -> set[str]:
        """Which of the digests are kept."""
        return set(self._index(set(digests), version))

    def get(self, digests: Iterable[str], *, version: int | None = None) -> dict[str, bytes]:
        """The bytes of digests, each verified; ``version`` is that of table ``blobs``.

        Raises:
            LakeError: a digest is not kept, or its pack is gone.
            IntegrityError: the pack holds other bytes than were put.
        """
        wanted = set(digests)
        index = self._index(wanted, version)
        if missing := sorted(wanted - index.keys()):
            raise LakeError(
                f"blob {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""),
                found="no row in table 'blobs'",
                do="It never left its device (needs.upload), or its journal was not collected yet.",
            )
        out = {}
        for name, (pack, offset, size) in sorted(index.items(), key=lambda item: item[1]):
            data = self._lake.store.read(f"{FOLDER}/{pack}", offset, size)
            if digest(data) != name:
                raise IntegrityError(
                    f"pack {pack} at {offset}",
                    expected=name,
                    found=digest(data),
                    do="Restore it from a copy.",
                )
            out[name] = data
        return out

    def _index(self, digests: set[str], version: int | None) -> dict[str, tuple[str, int, int]]:
        if not digests:
            return {}
        where = pc.field("digest").isin(pa.array(sorted(digests)))
        rows = self._lake.read("blobs", where=where, version=version).to_pylist()
        return {r["digest"]: (r["pack"], r["offset"], r["size"]) for r in rows}


def make_pack(blobs: Mapping[str, bytes]) -> tuple[bytes, pa.Table]:
    """The bytes of a pack and its index rows (pure); sorted by digest, named by its own sha256."""
    names = sorted(blobs)
    data = b"".join(blobs[n] for n in names)
    offsets, at = [], 0
    for name in names:
        offsets.append(at)
        at += len(blobs[name])
    pack = hashlib.sha256(data).hexdigest() + ".pack"
    rows = {"digest": names, "pack": [pack] * len(names), "offset": offsets}
    return data, pa.table(rows | {"size": [len(blobs[n]) for n in names]})
