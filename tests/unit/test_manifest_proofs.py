"""What the manifest says of proofs: who was read longest ago, how much that is, and where a content lies."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.manifest import SqliteManifest, SqliteManifests
from immich_usb_backup.policy.manifest import Change, FolderName, Known

ONE, TWO, THREE = b"1" * 20, b"2" * 20, b"3" * 20
LINES = {
    b"upload/u1/aa/old.jpg": Known(b"old.jpg", b"old.jpg", 10, 5, 1, ONE, 100),
    b"upload/u1/aa/new.jpg": Known(b"new.jpg", b"new.jpg", 20, 5, 2, TWO, 300),
    b"upload/u1/12:30/never.jpg": Known(b"never.jpg", b"never~.jpg", 2**40, 5, 3),
    b"library/twice.jpg": Known(b"twice.jpg", b"twice.jpg", 10, 5, 4, ONE, 200),
    b"library/link": Known(b"link", b"", 0, 0, link=b"../upload/u1"),
}


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[SqliteManifest]:
    opened = await SqliteManifests(tmp_path).open("BLUE")
    await opened.apply([FolderName(b"upload/u1/12:30", b"12_30~")])
    await opened.apply([Change(path, known) for path, known in LINES.items()])
    yield opened
    await opened.close()


async def test_what_was_never_read_comes_first_and_then_the_longest_ago(manifest: SqliteManifest) -> None:
    found = await manifest.least_proven(10, before=1000)
    paths = [b"upload/u1/12:30/never.jpg", b"upload/u1/aa/old.jpg", b"library/twice.jpg", b"upload/u1/aa/new.jpg"]
    assert [path for path, _, _ in found] == paths
    assert [line for _, _, line in found] == [LINES[path] for path in paths]
    assert found[0][1] == b"upload/u1/12_30~/never~.jpg"
    assert found[1][1] == paths[1]


async def test_no_more_than_asked_for_and_none_that_was_read_since(manifest: SqliteManifest) -> None:
    assert [path for path, _, _ in await manifest.least_proven(2, before=300)] == [
        b"upload/u1/12:30/never.jpg",
        b"upload/u1/aa/old.jpg",
    ]
    assert len(await manifest.least_proven(10, before=200)) == 2
    assert await manifest.least_proven(10, before=0) == ()


async def test_how_much_is_due(manifest: SqliteManifest) -> None:
    assert await manifest.unproven(before=201) == (3, 2**40 + 20)
    assert await manifest.unproven(before=1) == (1, 2**40)
    assert await manifest.unproven(before=0) == (0, 0)


async def test_how_much_is_proven_and_since_when(manifest: SqliteManifest) -> None:
    assert await manifest.proofs() == (3, 100)
    await manifest.clear()
    assert await manifest.proofs() == (0, None)


async def test_a_content_is_found_by_its_sha_1(manifest: SqliteManifest) -> None:
    found = await manifest.with_digests(iter([ONE, THREE, b""]))
    assert found.keys() == {ONE}
    assert found[ONE] in {b"upload/u1/aa/old.jpg", b"library/twice.jpg"}
    assert await manifest.with_digests([TWO, TWO]) == {TWO: b"upload/u1/aa/new.jpg"}
    assert await manifest.with_digests([]) == {}


async def test_asking_changes_nothing(manifest: SqliteManifest) -> None:
    await manifest.commit()
    await manifest.with_digests([ONE])
    await manifest.rollback()
    assert await manifest.totals() == (4, 2**40 + 40)
    assert await manifest.with_digests([TWO]) == {TWO: b"upload/u1/aa/new.jpg"}
