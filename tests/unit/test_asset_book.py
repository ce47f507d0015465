"""The book of a dump's assets: made once, found again, made anew where it is no good. On real files."""

from __future__ import annotations

import gzip
import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from tests.support import samples

from immich_usb_backup.adapters import asset_book
from immich_usb_backup.adapters.asset_book import SqliteAssetBook, SqliteAssetBooks
from immich_usb_backup.adapters.threads import Pulse, Stopped
from immich_usb_backup.errors import DumpUnusable, SourceUnreadable, StateDamaged
from immich_usb_backup.policy.assets import Asset

MEDIA = Path("/srv/immich")
HEAD = 'COPY public.asset ("originalPath", checksum, "isExternal", "deletedAt") FROM stdin;\n'


def _sha1(number: int) -> bytes:
    return bytes([number]) * 20


def _row(path: str, number: int, *, external: bool = False, trashed: bool = False) -> str:
    deleted = "2024-05-01" if trashed else "\\N"
    return f"{path}\t\\\\x{_sha1(number).hex()}\t{'t' if external else 'f'}\t{deleted}\n"


def _dump(path: Path, *rows: str, location: str = "/data") -> str:
    """Returns its SHA-256."""
    metadata = (
        f'COPY public.system_metadata (key, value) FROM stdin;\nMediaLocation\t{{"location": "{location}"}}\n\\.\n'
    )
    text = f"-- PostgreSQL database dump\n\n{HEAD}{''.join(rows)}\\.\n\n{metadata if location else ''}"
    content = gzip.compress(f"{text}-- PostgreSQL database dump complete\n".encode())
    path.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    return tmp_path / "dump.sql.gz"


class Closed(SqliteAssetBooks):
    """Closes at the end what was opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.opened: list[SqliteAssetBook] = []

    async def open(self, dump: Path, *, sha256: str, media_location: Path) -> SqliteAssetBook:
        book = await super().open(dump, sha256=sha256, media_location=media_location)
        self.opened.append(book)
        return book


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[SqliteAssetBooks]:
    books = Closed(tmp_path / "state")
    yield books
    for book in books.opened:
        await book.close()


def _files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "state/assets").iterdir())


def _all(book: SqliteAssetBook) -> dict[bytes, Mapping[bytes, Asset]]:
    return dict(book.folders())


async def _paths(books: SqliteAssetBooks, dump: Path, sha256: str, media: Path = MEDIA) -> list[bytes]:
    book = await books.open(dump, sha256=sha256, media_location=media)
    found = [asset.path for folder in _all(book).values() for asset in folder.values()]
    await book.close()
    return found


async def test_the_samples_every_photo_is_in_its_folder(books: SqliteAssetBooks, tmp_path: Path) -> None:
    library = samples.make_media_location(
        tmp_path / "media", photos=24, hostile_names=True, dumps=samples.DumpPlan(external=True)
    )
    for dump in (library.dumps[0], library.dumps[-1]):
        sha256 = hashlib.sha256(dump.read_bytes()).hexdigest()
        book = await books.open(dump, sha256=sha256, media_location=library.path)
        found = {asset.path: asset for folder in _all(book).values() for asset in folder.values()}
        gone = found.pop(f"upload/{library.owner_id}/00/00/deleted.jpg".encode())
        assert gone.trashed
        assert {os.fsdecode(path): (a.sha1.hex(), a.trashed) for path, a in found.items()} == {
            photo.path: (photo.sha1, photo.in_trash) for photo in library.photos
        }
        for path, asset in found.items():
            on_disk = (library.path / os.fsdecode(path)).read_bytes()
            assert asset.sha1 == hashlib.sha1(on_disk, usedforsecurity=False).digest()
        assert [asset.path for asset in book.outside()] == [b"/mnt/photos/2019/outside.jpg"]
        await book.close()


async def test_the_counts_are_those_of_the_rows(books: SqliteAssetBooks, dump: Path) -> None:
    rows = (
        _row("/data/upload/u/1.jpg", 1),
        _row("/data/upload/u/1.jpg", 1),
        _row("/data/library/a/2.jpg", 2, trashed=True),
        _row("/data/encoded-video/u/3.mp4", 3),
        _row("/data/thumbs/u/3.webp", 3),
        _row("/mnt/4.jpg", 4, external=True),
        _row("/elsewhere/5.jpg", 5),
    )
    facts = (await books.open(dump, sha256=_dump(dump, *rows), media_location=MEDIA)).facts
    assert (facts.assets, facts.external, facts.trashed, facts.unhashed) == (5, 2, 1, 1)
    assert facts.media_location == b"/data"


async def test_what_immich_makes_again_is_no_original(books: SqliteAssetBooks, dump: Path) -> None:
    sha256 = _dump(dump, _row("/data/encoded-video/u/3.mp4", 3), _row("/data/upload/u/1.jpg", 1))
    assert await _paths(books, dump, sha256) == [b"upload/u/1.jpg"]


async def test_of_two_assets_with_one_file_the_one_in_the_trash_is_not_asked(
    books: SqliteAssetBooks, dump: Path
) -> None:
    rows = [_row("/data/upload/u/1.jpg", number, trashed=number != 2) for number in (1, 2, 3)]
    book = await books.open(dump, sha256=_dump(dump, *rows), media_location=MEDIA)
    assert book.folder(b"upload/u") == {b"1.jpg": Asset(b"upload/u/1.jpg", _sha1(2))}


async def test_an_external_asset_in_the_media_location_is_outside_with_its_path_from_there(
    books: SqliteAssetBooks, dump: Path
) -> None:
    sha256 = _dump(dump, _row("/data/external/1.jpg", 1, external=True), _row("/mnt/2.jpg", 2))
    book = await books.open(dump, sha256=sha256, media_location=MEDIA)
    assert list(book.outside()) == [
        Asset(b"/mnt/2.jpg", _sha1(2), external=True),
        Asset(b"external/1.jpg", b"", external=True),
    ]
    assert _all(book) == {}


async def test_the_servers_media_location_serves_where_the_dump_has_none(books: SqliteAssetBooks, dump: Path) -> None:
    sha256 = _dump(dump, _row("/srv/immich/library/a/1.jpg", 1), location="")
    assert await _paths(books, dump, sha256) == [b"library/a/1.jpg"]
    assert await _paths(books, dump, sha256, Path("/srv/other")) == []


async def test_a_dump_is_read_once(books: SqliteAssetBooks, dump: Path, tmp_path: Path) -> None:
    sha256 = _dump(dump, _row("/data/upload/u/1.jpg", 1))
    first = await _paths(books, dump, sha256)
    dump.unlink()
    assert await _paths(SqliteAssetBooks(tmp_path / "state"), dump, sha256) == first == [b"upload/u/1.jpg"]


@pytest.mark.parametrize("damage", ["nothing in it", "cut", "header", "page", "newer", "no facts"])
async def test_a_damaged_book_is_made_anew(books: SqliteAssetBooks, dump: Path, tmp_path: Path, damage: str) -> None:
    sha256 = _dump(dump, *(_row(f"/data/upload/u/{number:04}.jpg", 1) for number in range(2000)))
    first = await _paths(books, dump, sha256)
    (file,) = _files(tmp_path)
    content = bytearray(file.read_bytes())
    if damage == "nothing in it":
        content.clear()
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "header":
        content[:16] = b"x" * 16
    elif damage == "page":
        content[-4096 * 3 : -4096] = b"\xff" * 4096 * 2
    elif damage == "newer":
        content[60:64] = (99).to_bytes(4, "big")
    else:
        place = content.index(b'"server_version"')
        content[place : place + 8] = b'"unknown'
    file.write_bytes(content)
    assert await _paths(books, dump, sha256) == first
    assert len(first) == 2000


async def test_two_books_are_kept(books: SqliteAssetBooks, tmp_path: Path) -> None:
    hashes = []
    for number in range(4):
        dump = tmp_path / f"{number}.sql.gz"
        hashes.append(_dump(dump, _row(f"/data/upload/u/{number}.jpg", 1)))
        await _paths(books, dump, hashes[-1])
        for age, known in enumerate(reversed(hashes)):
            if (file := tmp_path / f"state/assets/{known}.db").exists():
                os.utime(file, (10**9 - age, 10**9 - age))
    assert {file.stem for file in _files(tmp_path)} == set(hashes[-2:])


async def test_what_a_power_cut_left_is_cleared_away(books: SqliteAssetBooks, dump: Path, tmp_path: Path) -> None:
    left = tmp_path / "state/assets" / ("0" * 64 + ".db.new")
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    sha256 = _dump(dump, _row("/data/upload/u/1.jpg", 1))
    await _paths(books, dump, sha256)
    assert [file.name for file in _files(tmp_path)] == [f"{sha256}.db"]


async def test_a_dump_that_is_no_good_leaves_no_book(books: SqliteAssetBooks, dump: Path, tmp_path: Path) -> None:
    sha256 = _dump(dump, _row("/data/upload/u/1.jpg", 1), "torn\n")
    with pytest.raises(DumpUnusable, match=r"dump\.sql\.gz: a row of its table asset has 1 columns"):
        await books.open(dump, sha256=sha256, media_location=MEDIA)
    with pytest.raises(SourceUnreadable):
        await books.open(tmp_path / "none", sha256=sha256, media_location=MEDIA)
    assert _files(tmp_path) == []


async def test_a_reading_that_is_stopped_leaves_no_book(books: SqliteAssetBooks, dump: Path, tmp_path: Path) -> None:
    sha256 = _dump(dump, _row("/data/upload/u/1.jpg", 1))
    pulse = Pulse()
    pulse.stopped = True
    with pytest.raises(Stopped):
        books.open_now(dump, sha256=sha256, media_location=Path("/srv"), beat=pulse.beat)
    assert _files(tmp_path) == []


async def test_a_dump_that_is_not_the_one_on_the_disk_is_not_believed(books: SqliteAssetBooks, dump: Path) -> None:
    _dump(dump, _row("/data/upload/u/1.jpg", 1))
    with pytest.raises(DumpUnusable, match="has changed"):
        await books.open(dump, sha256="0" * 64, media_location=MEDIA)


async def test_a_state_directory_that_cannot_be_written_is_said(dump: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateDamaged, match="cannot be used"):
        await SqliteAssetBooks(tmp_path / "file").open(
            dump, sha256=_dump(dump, _row("/data/upload/u/1.jpg", 1)), media_location=MEDIA
        )


async def test_a_book_that_breaks_while_it_is_read_is_said(
    books: SqliteAssetBooks, dump: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = _dump(dump, *(_row(f"/data/upload/u/{number:04}.jpg", 1) for number in range(2000)))
    facts = (await books.open(dump, sha256=sha256, media_location=MEDIA)).facts
    (file,) = _files(tmp_path)
    content = bytearray(file.read_bytes())
    content[4096 * 3 :] = b"\xff" * (len(content) - 4096 * 3)
    file.write_bytes(content)
    monkeypatch.setattr(asset_book, "_about", lambda _: (facts, sha256, os.fsencode(MEDIA)))  # nobody sees the damage
    book = await books.open(dump, sha256=sha256, media_location=MEDIA)
    with pytest.raises(StateDamaged):
        _all(book)
