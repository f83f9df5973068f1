"""A pinned dataset reads the same for ever."""

from __future__ import annotations

import pytest

from aiotkit.core.errors import IntegrityError, LakeError

pytest.importorskip("deltalake")
pytestmark = pytest.mark.desk


def values(table):
    return sorted(table["value"].to_pylist())


def test_pinned_dataset_survives_append_optimise_and_vacuum(lake, telemetry):
    """After compaction and a vacuum without grace, every pinned version still reads its rows."""
    from aiotkit.lake.manifest import load_manifest, manifests, optimise, pin, read_pinned, vacuum

    pins = []
    for i in range(4):
        lake.append("telemetry", telemetry(3, 3 * i))
        lake.append("telemetry", telemetry(1, 100 + i))
        if i % 2 == 0:
            pins.append((pin(lake, created_us=i, note=f"run {i}"), values(lake.read("telemetry"))))
    unpinned = lake.versions()["telemetry"]
    assert optimise(lake)["telemetry"]["removed"] > 1
    assert vacuum(lake, retain_h=0)["telemetry"] > 0
    for manifest, expected in pins:
        again = load_manifest(lake, manifest.digest)
        assert again == manifest
        assert values(read_pinned(lake, again, "telemetry")) == expected
    assert [m.note for m in manifests(lake)] == ["run 0", "run 2"]
    assert lake.read("telemetry").num_rows == 16
    with pytest.raises(LakeError, match=f"version {unpinned} cannot be read.*gone or damaged"):
        lake.read("telemetry", version=unpinned)


def test_unpinned_version_may_go(lake, telemetry):
    """Once a manifest is forgotten, vacuum frees what only it needed."""
    from aiotkit.lake.manifest import optimise, pin, read_pinned, unpin, vacuum

    for i in range(3):
        lake.append("telemetry", telemetry(2, i))
    manifest = pin(lake, created_us=1)
    optimise(lake)
    assert vacuum(lake, retain_h=0)["telemetry"] == 0
    unpin(lake, manifest)
    assert vacuum(lake, retain_h=0)["telemetry"] > 0
    with pytest.raises(LakeError, match="cannot be read"):
        read_pinned(lake, manifest, "telemetry")


def test_fresh_files_survive_a_vacuum_with_grace(lake, telemetry):
    """Files younger than the grace stay, pinned or not: writers may be at work."""
    from aiotkit.lake.manifest import optimise, vacuum

    for i in range(3):
        lake.append("telemetry", telemetry(2, i))
    version = lake.versions()["telemetry"]
    optimise(lake)
    assert sum(vacuum(lake).values()) == 0
    assert lake.read("telemetry", version=version).num_rows == 6


def test_watermarks_survive_optimise_and_vacuum(lake, telemetry):
    """Compaction rewrites files, never what was committed with them."""
    from aiotkit.lake.manifest import optimise, vacuum

    for i in range(4):
        lake.append("telemetry", telemetry(2, i), transactions={"s": i + 1})
    optimise(lake)
    vacuum(lake, retain_h=0)
    assert lake.watermark("s", table="telemetry") == 4


def test_manifest_digest_is_its_identity(tmp_path, lake, telemetry):
    """An altered manifest, or one of another lake, is refused."""
    from aiotkit.lake.lake import Lake
    from aiotkit.lake.manifest import load_manifest, pin

    lake.append("telemetry", telemetry(2))
    manifest = pin(lake, created_us=5)
    path = f"manifests/{manifest.digest[7:]}.json"
    data = lake.store.read(path)
    other = Lake.create(tmp_path / "other")
    other.store.write(path, data)
    with pytest.raises(LakeError, match="The manifest belongs to another lake"):
        load_manifest(other, manifest.digest)
    lake.store.write(path, data.replace(b'"created_us":5', b'"created_us":6'))
    with pytest.raises(IntegrityError, match="dataset manifest"):
        load_manifest(lake, manifest.digest)
    with pytest.raises(LakeError, match="is missing"):
        load_manifest(lake, "sha256:00")
    assert data.startswith(b'{"created_us":5,"format":1')
