"""The manifest on real SQLite: what was committed is there, what was not is gone, and each file has one place."""

from __future__ import annotations

import asyncio
import gzip
import io
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from immich_usb_backup.adapters import manifest as adapter
from immich_usb_backup.adapters import manifest_tables
from immich_usb_backup.adapters.manifest import SqliteManifest, SqliteManifests
from immich_usb_backup.errors import ManifestUnusable, StateDamaged
from immich_usb_backup.policy.manifest import Change, DiskRecord, Fingerprint, FolderName, Known, ManifestHeader

ROOT = Path(__file__).parents[2]
UUID = "1234-ABCD"
HEADER = ManifestHeader(
    generation="g", server_id="i", server_name="nas", run_id="r", written=datetime(2026, 11, 21, 13, 5, tzinfo=UTC)
)
RECORD = DiskRecord(
    generation="g7",
    walked=datetime(2026, 11, 21, 13, 5, 9, 123456, tzinfo=UTC),
    fingerprint=Fingerprint(7, (("a \udcff \ud83d é", False, 2**40, 863_000_000), ("database", True, 0, 1))),
    proofs={"database/é\udc80.sql.gz": (123, "ab" * 32)},
    mount_points=("upload", "extra/pictures"),
    adopt=True,
    approved=True,
)
CHILD = """
import asyncio, os, signal, sys
from pathlib import Path
from immich_usb_backup.adapters.manifest import SqliteManifests
from tests.unit.test_manifest import UUID, put
async def main():
    manifest = await SqliteManifests(Path(sys.argv[1])).open(UUID)
    manifest._database.execute("PRAGMA cache_size = 10")
    await manifest.apply(put(f"upload/u/{n}.jpg") for n in range(20_000))
    print((await manifest.totals())[0], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


def put(path: str | bytes, **fields: Any) -> Change:
    """A file comes."""
    raw = os.fsencode(path)
    name = raw.rpartition(b"/")[2]
    known = Known(name, fields.pop("stored", name), fields.pop("size", 5), fields.pop("mtime_ns", 10**18), **fields)
    return Change(raw, known)


def drop(path: str) -> Change:
    """A file goes."""
    return Change(path.encode(), None)


def _everything(manifest: SqliteManifest, *, stored: bool = False) -> dict[bytes, Known]:
    """All files by their paths, as a run finds them: from folder to folder."""
    waiting, found = [b""], {}
    while waiting:
        path = waiting.pop()
        folder = manifest.stored_folder(path) if stored else manifest.folder(path)
        assert folder is not None
        assert (folder.stored_path if stored else folder.path) == path
        found.update({_join(folder.path, name): known for name, known in folder.files.items()})
        waiting += [_join(path, name) for name in (folder.folders.values() if stored else folder.folders)]
    return found


def _join(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _written(manifest: SqliteManifest) -> bytes:
    sink = io.BytesIO()
    manifest.write(HEADER, sink)
    return sink.getvalue()


def _text(manifest: SqliteManifest) -> str:
    return gzip.decompress(_written(manifest)).decode()


@pytest.fixture
def manifests(tmp_path: Path) -> SqliteManifests:
    return SqliteManifests(tmp_path / "state")


@pytest.fixture
async def manifest(manifests: SqliteManifests) -> Any:
    manifest = await manifests.open(UUID)
    yield manifest
    await manifest.close()


async def _reopened(manifests: SqliteManifests, manifest: SqliteManifest) -> SqliteManifest:
    await manifest.close()
    return await manifests.open(UUID)


async def test_a_disk_that_was_never_seen_has_nothing(manifest: SqliteManifest) -> None:
    top = manifest.folder(b"")
    assert top is not None
    assert (top.path, top.stored_path, top.files, top.folders) == (b"", b"", {}, {})
    assert manifest.folder(b"upload") is None
    assert manifest.stored_folder(b"upload") is None
    assert await manifest.file(b"upload/a.jpg") is None
    assert await manifest.totals() == (0, 0)
    assert await manifest.record() == DiskRecord()
    assert await manifest.held() == frozenset()


FULL = put(
    "upload/u/aa/1.jpg",
    stored=b"_1.jpg",
    size=2**62,
    mtime_ns=-1,
    inode=2**64 - 1,
    digest=b"\0" * 20,
    proven=1_764_000_000,
    guessed=True,
)


@pytest.mark.parametrize(
    "change",
    [
        FULL,
        put("upload/.immich", mtime_ns=2**66, inode=2**63),
        put(b"library/\xff\xfe.jpg", mtime_ns=-(2**63) - 1, inode=2**63 - 1),
        put("upload/u/link", stored=b"", size=0, mtime_ns=0, link=b"../\xff elsewhere"),
        put("profile/empty", size=0, mtime_ns=0),
    ],
    ids=lambda change: repr(change.path),
)
async def test_a_file_is_found_as_it_was_put(
    manifests: SqliteManifests, manifest: SqliteManifest, change: Change
) -> None:
    await manifest.apply([change])
    await manifest.commit()
    manifest = await _reopened(manifests, manifest)
    assert await manifest.file(change.path) == change.known
    assert _everything(manifest) == {change.path: change.known}
    known = _everything(manifest)[change.path]
    assert type(known.guessed) is bool
    await manifest.close()


async def test_links_do_not_count_and_large_sizes_add_up(manifest: SqliteManifest) -> None:
    await manifest.apply(put(f"upload/{n}", size=2**62 + n) for n in range(8))
    await manifest.apply([put("upload/link", stored=b"", link=b"x", size=9)])
    assert await manifest.totals() == (8, 8 * 2**62 + 28)


async def test_a_put_takes_the_place_of_what_was_there(manifest: SqliteManifest) -> None:
    await manifest.apply([put("upload/a", size=1, digest=b"\1" * 20), put("upload/a", size=2)])
    assert await manifest.file(b"upload/a") == put("upload/a", size=2).known
    await manifest.apply([drop("upload/a"), put("upload/a", size=3), put("upload/b"), drop("upload/b")])
    assert _everything(manifest) == {b"upload/a": put("upload/a", size=3).known}


async def test_dropping_what_is_not_a_known_file_does_nothing(manifest: SqliteManifest) -> None:
    await manifest.apply([put("upload/u/a")])
    for path in ("upload", "upload/u", "upload/b", "upload/u/b", "upload/u/a/b", "library/x", "nothing"):
        await manifest.apply([drop(path)])
    await manifest.commit()
    assert list(_everything(manifest)) == [b"upload/u/a"]


@pytest.mark.parametrize(
    "path", ["upload/a/b", "upload/a/b/c", "a", "/upload/x", "upload//x", "upload/../x", "upload/x/", "upload/.."]
)
async def test_a_path_that_cannot_be_is_a_bug(manifest: SqliteManifest, path: str) -> None:
    await manifest.apply([put("upload/a")])
    with pytest.raises(ValueError, match=r"can|is a file"):
        await manifest.apply([put("upload/c"), put(path)])
    await manifest.apply([put("upload/d")])
    await manifest.commit()
    assert set(_everything(manifest)) - {b"upload/c"} == {b"upload/a", b"upload/d"}


@pytest.mark.parametrize(
    ("path", "stored"), [("upload", "other"), ("upload/a", "b/c"), ("upload/a", ".."), ("upload/a", "")]
)
async def test_a_folder_name_that_cannot_be_is_a_bug(manifest: SqliteManifest, path: str, stored: str) -> None:
    with pytest.raises(ValueError, match="cannot be stored"):
        await manifest.apply([FolderName(path.encode(), stored.encode())])


async def test_a_folder_may_come_where_a_file_was_and_below_a_link(manifest: SqliteManifest) -> None:
    link = put("upload/l", stored=b"", link=b"x")
    await manifest.apply([put("upload/a"), drop("upload/a"), put("upload/a/b"), link, put("upload/l/kept")])
    assert set(_everything(manifest)) == {b"upload/a/b", b"upload/l", b"upload/l/kept"}


async def test_folders_under_other_names_are_found_from_both_sides(
    manifests: SqliteManifests, manifest: SqliteManifest
) -> None:
    await manifest.apply(
        [
            FolderName(b"library/a:b", b"a_b"),
            FolderName(b"library/a:b/c/d.", b"d_"),
            put("library/a:b/c/d./1:2.jpg", stored=b"1_2.jpg"),
            put("library/plain/x.jpg"),
        ]
    )
    await manifest.commit()
    manifest = await _reopened(manifests, manifest)
    folder = manifest.folder(b"library/a:b/c/d.")
    assert folder is not None
    assert folder.stored_path == b"library/a_b/c/d_"
    assert folder == manifest.stored_folder(b"library/a_b/c/d_")
    above = manifest.stored_folder(b"library/a_b/c")
    assert above is not None
    assert (above.path, above.folders) == (b"library/a:b/c", {b"d.": b"d_"})
    assert manifest.stored_folder(b"library/a:b") is None
    assert manifest.folder(b"library/a_b") is None
    assert _everything(manifest, stored=True) == _everything(manifest)
    await manifest.close()


async def test_a_folder_that_is_renamed_on_the_disk_takes_all_below_it_along(manifest: SqliteManifest) -> None:
    await manifest.apply([put("upload/A/b/c.jpg")])
    assert manifest.folder(b"upload/A/b") == manifest.stored_folder(b"upload/A/b")
    await manifest.apply([FolderName(b"upload/A", b"A~")])
    folder = manifest.folder(b"upload/A/b")
    assert folder is not None
    assert folder.stored_path == b"upload/A~/b"
    assert manifest.stored_folder(b"upload/A/b") is None
    assert manifest.stored_folder(b"upload/A~/b") == folder


async def test_a_folder_goes_with_its_last_file_and_takes_empty_ones_above_along(manifest: SqliteManifest) -> None:
    await manifest.apply([put("upload/a/b/c/1"), put("upload/a/2"), put("library/x/y/3")])
    await manifest.commit()
    await manifest.apply([drop("upload/a/b/c/1"), drop("library/x/y/3")])
    await manifest.commit()
    top, upload = manifest.folder(b""), manifest.folder(b"upload/a")
    assert top is not None
    assert upload is not None
    assert set(top.folders) == {b"upload"}
    assert upload.folders == {}
    assert manifest.folder(b"library/x") is None
    assert manifest.stored_folder(b"upload/a/b") is None


async def test_many_folders_that_are_left_empty_all_go(
    manifest: SqliteManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest_tables, "_DIRTY_AT_MOST", 5)
    monkeypatch.setattr(manifest_tables, "_BATCH", 3)
    paths = [f"upload/{a}/{b}/{n}" for a in range(4) for b in range(5) for n in range(2)]
    await manifest.apply(put(path) for path in paths)
    await manifest.apply(drop(path) for path in paths[:-1])
    await manifest.commit()
    assert list(_everything(manifest)) == [paths[-1].encode()]
    assert [line for line in _text(manifest).splitlines() if "folder" in line][1:-1] == [
        '{"folder":"upload"}',
        '{"folder":"upload/3"}',
        '{"folder":"upload/3/4"}',
    ]


async def test_a_folder_name_without_a_file_does_not_last(manifest: SqliteManifest) -> None:
    await manifest.apply([FolderName(b"upload/a:", b"a_"), FolderName(b"upload/b:", b"b_")])
    await manifest.apply([put("upload/a:/1")])
    await manifest.commit()
    folder = manifest.folder(b"upload")
    assert folder is not None
    assert folder.folders == {b"a:": b"a_"}


async def test_a_folder_that_comes_back_has_its_own_name_again(manifest: SqliteManifest) -> None:
    await manifest.apply([FolderName(b"upload/a", b"a_"), put("upload/a/1")])
    await manifest.apply([drop("upload/a/1")])
    await manifest.commit()
    await manifest.apply([put("upload/a/1")])
    folder = manifest.folder(b"upload/a")
    assert folder is not None
    assert folder.stored_path == b"upload/a"


async def test_what_is_not_committed_is_forgotten(manifests: SqliteManifests, manifest: SqliteManifest) -> None:
    await manifest.apply([put("upload/a/1")])
    await manifest.commit()
    await manifest.apply([put("library/b/2"), drop("upload/a/1")])
    await manifest.save(RECORD)
    await manifest.hold([b"x"])
    await manifest.rollback()
    assert list(_everything(manifest)) == [b"upload/a/1"]
    assert manifest.folder(b"library") is None
    await manifest.apply([put("upload/c")])
    manifest = await _reopened(manifests, manifest)
    assert list(_everything(manifest)) == [b"upload/a/1"]
    assert await manifest.record() == DiskRecord()
    assert await manifest.held() == frozenset()
    await manifest.close()


async def test_clear_forgets_the_files_and_keeps_the_rest(manifest: SqliteManifest) -> None:
    await manifest.apply([put("upload/a/1")])
    await manifest.save(RECORD)
    await manifest.clear()
    assert manifest.folder(b"upload") is None
    assert await manifest.totals() == (0, 0)
    assert await manifest.record() == RECORD
    await manifest.apply([put("upload/a/2")])
    assert list(_everything(manifest)) == [b"upload/a/2"]


def test_a_kill_leaves_the_last_commit(tmp_path: Path) -> None:
    async def before() -> None:
        manifest = await SqliteManifests(tmp_path).open(UUID)
        await manifest.apply(put(f"upload/old/{n}") for n in range(100))
        await manifest.commit()
        await manifest.close()

    async def after() -> dict[bytes, Known]:
        manifest = await SqliteManifests(tmp_path).open(UUID)
        try:
            return _everything(manifest)
        finally:
            await manifest.close()

    asyncio.run(before())
    python_path = os.pathsep.join([str(ROOT / "daemon"), str(ROOT)])
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": python_path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (child.returncode, child.stdout) == (-signal.SIGKILL, "20100\n"), child.stderr
    assert len(list((tmp_path / "manifests").iterdir())) == 2, "a journal must be left, else this shows nothing"
    assert set(asyncio.run(after())) == {b"upload/old/%d" % n for n in range(100)}


async def test_the_record_and_what_is_held_come_back(manifests: SqliteManifests, manifest: SqliteManifest) -> None:
    await manifest.save(RECORD)
    await manifest.hold([b"old"])
    await manifest.hold(iter([b"upload/\xff", b"b", b"b"]))
    await manifest.commit()
    manifest = await _reopened(manifests, manifest)
    assert await manifest.record() == RECORD
    assert await manifest.held() == {b"upload/\xff", b"b"}
    await manifest.close()


async def test_approving_and_adopting_between_runs(manifests: SqliteManifests) -> None:
    assert await manifests.approve(UUID) == 0
    manifest = await manifests.open(UUID)
    assert await manifest.record() == DiskRecord()
    record = replace(RECORD, adopt=False, approved=False)
    await manifest.save(record)
    await manifest.hold([b"a", b"b"])
    await manifest.commit()
    await manifest.close()
    assert await manifests.approve(UUID) == 2
    await manifests.adopt(UUID)
    manifest = await manifests.open(UUID)
    assert await manifest.record() == RECORD
    assert await manifest.held() == {b"a", b"b"}
    await manifest.close()


async def test_an_approval_while_a_run_is_under_way_says_so_and_harms_nothing(
    manifests: SqliteManifests, manifest: SqliteManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_BUSY_SECONDS", 0.01)
    await manifest.hold([b"a"])
    await manifest.commit()
    assert await manifests.approve(UUID) == 1
    await manifest.apply([put("upload/a")])
    with pytest.raises(StateDamaged) as caught:
        await manifests.approve(UUID)
    assert "under way" in str(caught.value.hint)
    await manifest.commit()
    assert (await manifest.record()).approved


async def test_a_manifest_can_be_closed_while_its_writer_hangs(
    manifests: SqliteManifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "_BUSY_SECONDS", 0.01)
    manifest = await manifests.open(UUID)
    await manifest.apply([put("upload/a")])
    await manifest.commit()
    hangs, goes_on = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    class Dead(io.BytesIO):
        def write(self, data: Any, /) -> int:
            loop.call_soon_threadsafe(hangs.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()
            return len(data)

    writing = asyncio.create_task(asyncio.to_thread(manifest.write, HEADER, Dead()))
    await hangs.wait()
    await manifest.close()
    await manifests.adopt(UUID)
    goes_on.set()
    await asyncio.wait([writing])
    assert isinstance(writing.exception(), StateDamaged | None)


components = st.binary(min_size=1, max_size=6).filter(
    lambda name: not set(b"/\0") & set(name) and name not in (b".", b"..")
)
trees = st.dictionaries(
    st.tuples(
        st.sampled_from([b"upload", b"library"]), st.lists(components.map(lambda name: b"d" + name), max_size=3)
    ).map(lambda parts: b"/".join([parts[0], *parts[1]])),
    st.sets(components.map(lambda name: b"f" + name), min_size=1, max_size=3),
    max_size=6,
)


@given(trees, st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_any_tree_goes_to_the_disk_and_comes_back_the_same(tree: dict[bytes, set[bytes]], random: Any) -> None:
    changes: list[Change | FolderName] = []
    for folder, names in tree.items():
        if folder.count(b"/") and random.random() < 0.3:
            changes.append(FolderName(folder, b"_%d" % len(changes)))
        for name in names:
            stored = b"__%d" % len(changes) if random.random() < 0.3 else name
            digest = random.choice([b"", b"\1" * 20])
            changes.append(put(_join(folder, name), stored=stored, size=random.randrange(9), digest=digest, proven=3))
    other = changes.copy()
    random.shuffle(other)

    async def body(state: Path) -> None:
        manifests = SqliteManifests(state)
        first, second, third = [await manifests.open(uuid) for uuid in ("a", "b", "c")]
        await first.apply(changes)
        await second.apply(other)
        assert _written(second) == _written(first), "the order in which it came makes no difference"
        assert third.read(io.BytesIO(_written(first))) == HEADER
        await third.commit()
        everything = {change.path: change.known for change in changes if isinstance(change, Change)}
        assert _everything(third) == _everything(third, stored=True) == everything
        assert _written(third) == _written(first)
        for manifest in (first, second, third):
            await manifest.close()

    with tempfile.TemporaryDirectory() as state:
        asyncio.run(body(Path(state)))


async def test_reading_replaces_what_was_there_and_loses_inodes(
    manifests: SqliteManifests, manifest: SqliteManifest
) -> None:
    await manifest.apply([FULL])
    content = _written(manifest)
    await manifest.clear()
    await manifest.apply([put("upload/other"), put("library/other/x")])
    assert manifest.read(io.BytesIO(content)) == HEADER
    assert FULL.known is not None
    assert _everything(manifest) == {FULL.path: FULL.known._replace(inode=0)}
    await manifest.apply([put("upload/new/y")])
    await manifest.commit()
    manifest = await _reopened(manifests, manifest)
    assert set(_everything(manifest)) == {FULL.path, b"upload/new/y"}
    await manifest.close()


class _Pulled(io.BytesIO):
    """A disk that is pulled in the middle of the file."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(40_000)


@pytest.mark.parametrize("kind", ["cut off", "pulled", "stored twice"])
async def test_a_failed_reading_leaves_what_was_there(
    manifests: SqliteManifests, manifest: SqliteManifest, kind: str
) -> None:
    other = await manifests.open("other")
    twice = [put("upload/a", stored=b"c"), put("upload/b", stored=b"c")] if kind == "stored twice" else []
    await other.apply([*(put(f"upload/{n}/{n}", digest=os.urandom(20)) for n in range(3000)), *twice])
    content = _written(other)
    await other.close()
    await manifest.apply([put("upload/committed"), put("upload/gone/x")])
    await manifest.commit()
    await manifest.apply([put("upload/uncommitted"), drop("upload/gone/x")])
    stream = _Pulled(content) if kind == "pulled" else io.BytesIO(content[:-9] if kind == "cut off" else content)
    with pytest.raises(OSError if kind == "pulled" else ManifestUnusable):
        manifest.read(stream)
    await manifest.apply([put("upload/later")])
    await manifest.commit()
    manifest = await _reopened(manifests, manifest)
    assert set(_everything(manifest)) == {b"upload/committed", b"upload/uncommitted", b"upload/later"}
    assert "gone" not in _text(manifest)
    await manifest.close()


@pytest.mark.parametrize(
    "changes",
    [
        [put("upload/a", stored=b"x"), put("upload/b", stored=b"x")],
        [put("upload/a", stored=b"b"), put("upload/b")],
        [FolderName(b"upload/a", b"x"), FolderName(b"upload/b", b"x"), put("upload/a/1"), put("upload/b/1")],
        [put("upload/x"), FolderName(b"upload/a", b"x"), put("upload/a/1")],
        [put("upload/c", stored=b"a"), put("upload/a/1")],
    ],
)
async def test_a_disks_manifest_with_two_files_at_one_place_is_refused(
    manifest: SqliteManifest, changes: Iterable[Change | FolderName]
) -> None:
    await manifest.apply(changes)
    with pytest.raises(ManifestUnusable, match="same place"):
        manifest.read(io.BytesIO(_written(manifest)))


async def test_links_take_no_place_on_the_disk(manifest: SqliteManifest) -> None:
    links = [put(f"upload/{name}", stored=b"", link=b"t") for name in "ab"]
    await manifest.apply([*links, put("upload/a/kept"), put("upload/c", stored=b"b")])
    before = _everything(manifest)
    manifest.read(io.BytesIO(_written(manifest)))
    assert _everything(manifest) == before


def _database(state: Path) -> Path:
    (path,) = (state / "manifests").glob("*.db")
    return path


async def _filled(manifests: SqliteManifests) -> None:
    manifest = await manifests.open(UUID)
    await manifest.apply(put(f"upload/{n}/{n}.jpg") for n in range(500))
    await manifest.commit()
    await manifest.close()


@pytest.mark.parametrize("damage", ["not SQLite", "holes"])
async def test_a_damaged_database_is_moved_aside_and_begun_anew(tmp_path: Path, damage: str) -> None:
    told: list[str] = []
    manifests = SqliteManifests(tmp_path, on_damaged=told.append)
    await _filled(manifests)
    path = _database(tmp_path)
    content = path.read_bytes()
    broken = b"x" * len(content) if damage == "not SQLite" else content[:8192] + b"x" * (len(content) - 8192)
    path.write_bytes(broken)
    journal = path.with_name(path.name + "-journal")
    journal.write_bytes(b"it belongs to the damaged one")
    manifest = await manifests.open(UUID)
    assert _everything(manifest) == {}
    await manifest.apply([put("upload/new")])
    await manifest.commit()
    await manifest.close()
    aside = path.with_name(path.name + ".damaged")
    assert told == [str(aside)]
    assert aside.read_bytes() == broken
    assert not journal.exists()


async def test_a_newer_database_is_refused_and_left(tmp_path: Path) -> None:
    manifests = SqliteManifests(tmp_path)
    await _filled(manifests)
    with sqlite3.connect(_database(tmp_path)) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    with pytest.raises(StateDamaged, match="newer"):
        await manifests.open(UUID)
    assert [path.suffix for path in (tmp_path / "manifests").iterdir()] == [".db"]


async def test_a_state_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifests").write_text("a file")
    with pytest.raises(StateDamaged, match="manifests"):
        await SqliteManifests(tmp_path).open(UUID)
    with pytest.raises(StateDamaged, match="server-id"):
        await SqliteManifests(tmp_path / "manifests").server_id()


HOSTILE = [
    "",
    ".",
    "..",
    "../../etc/passwd",
    "a/b",
    "a\0b",
    "é",
    "\udcff",
    "x" * 300,
    "1234-abcd\n",
    "CON",
    "1234_ABCD",
    UUID,
]


async def test_each_disk_has_its_own_file_in_its_folder_whatever_it_calls_itself(tmp_path: Path) -> None:
    manifests = SqliteManifests(tmp_path / "state")
    for number, uuid in enumerate(HOSTILE):
        manifest = await manifests.open(uuid)
        await manifest.apply([put(f"upload/{number}")])
        await manifest.commit()
        await manifest.close()
    for number, uuid in enumerate(HOSTILE):
        manifest = await manifests.open(uuid)
        assert list(_everything(manifest)) == [b"upload/%d" % number]
        await manifest.close()
    assert len(list((tmp_path / "state/manifests").iterdir())) == len(HOSTILE)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


async def test_the_identity_is_made_once(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = await SqliteManifests(state).server_id()
    assert await SqliteManifests(state).server_id() == first
    assert len(bytes.fromhex(first)) == 16
    assert await SqliteManifests(tmp_path / "other").server_id() != first


async def test_two_who_ask_at_once_get_one_identity(tmp_path: Path) -> None:
    manifests = SqliteManifests(tmp_path)
    assert len(set(await asyncio.gather(*(manifests.server_id() for _ in range(8))))) == 1


@pytest.mark.parametrize("content", [b"", b"x" * 32, b"0" * 31, b"0" * 200])
async def test_a_damaged_identity_is_not_replaced_in_silence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "server-id").write_bytes(content)
    with pytest.raises(StateDamaged, match="server-id"):
        await SqliteManifests(tmp_path).server_id()
    assert (tmp_path / "server-id").read_bytes() == content


async def test_memory_does_not_grow_with_the_number_of_files(manifest: SqliteManifest) -> None:
    alive = 0
    most = 0

    class Counted(bytes):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def many() -> Iterable[Change]:
        nonlocal alive, most
        for n in range(20_000):
            alive += 1
            most = max(most, alive)
            yield put(Counted(b"upload/%d/%d.jpg" % (n // 100, n)))

    await manifest.apply(many())
    assert (await manifest.totals())[0] == 20_000
    assert most < 10
