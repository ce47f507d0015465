"""What the core may rely on when it asks for a dump's assets: the same for the fake and for the real books."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.asset_book import SqliteAssetBooks
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.ports import AssetBook, AssetBooks
from tests.support.fakes import World

ONE, TWO, THREE = (bytes([number]) * 20 for number in (1, 2, 3))
ASSETS = (
    Asset(b"upload/u1/ab/cd/1.jpg", ONE),
    Asset(b"upload/u1/ab/cd/0.jpg", TWO, trashed=True),
    Asset(b"upload/u1/ab/z.jpg", THREE),
    Asset(b"upload/u1/ab c/1.jpg", b""),
    Asset("library/admin/2024/Café\t\\.\U0001f4f7.jpg".encode(), ONE),
    Asset(b"/mnt/b/1.jpg", b"", external=True),
    Asset(b"/mnt/a b/2.jpg", b"", external=True, trashed=True),
    Asset(b"/mnt/a/2.jpg", TWO, external=True),
)
DUMP = Path("dump.sql")


def _line(asset: Asset) -> bytes:
    path = asset.path if asset.external else b"/data/" + asset.path
    escaped = path.replace(b"\\", b"\\\\").replace(b"\t", b"\\t")
    checksum = b"\\\\x" + asset.sha1.hex().encode() if asset.sha1 else b"\\N"
    return b"\t".join((escaped, checksum, b"2024-05-01" if asset.trashed else b"\\N")) + b"\n"


def _text() -> bytes:
    return b"".join(
        (
            b"--\n-- PostgreSQL database dump\n--\n",
            b'COPY public.asset ("originalPath", checksum, "deletedAt") FROM stdin;\n',
            *map(_line, ASSETS),
            b"\\.\n\nCOPY public.system_metadata (key, value) FROM stdin;\n",
            b'MediaLocation\t{"location": "/data"}\n\\.\n\n--\n-- PostgreSQL database dump complete\n--\n',
        )
    )


@pytest.fixture(params=["fake", "sqlite"])
async def book(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AssetBook]:
    world = World(tmp_path)
    world.asset_books.assets = list(ASSETS)
    books: AssetBooks = world.asset_books
    if request.param == "sqlite":
        books = SqliteAssetBooks(tmp_path / "state")
        (tmp_path / DUMP).write_bytes(_text())
    sha256 = hashlib.sha256(_text()).hexdigest()
    found = await books.open(tmp_path / DUMP, sha256=sha256, media_location=Path("/srv"))
    yield found
    await found.close()


def test_folders_come_sorted_with_their_assets(book: AssetBook) -> None:
    found = list(book.folders())
    assert [folder for folder, _ in found] == [
        b"library/admin/2024",
        b"upload/u1/ab",
        b"upload/u1/ab c",
        b"upload/u1/ab/cd",
    ]
    assert sorted(asset for _, assets in found for asset in assets.values()) == sorted(
        asset for asset in ASSETS if not asset.external
    )
    assert list(found[-1][1]) == [b"0.jpg", b"1.jpg"]


def test_a_folder_has_its_own_assets_by_name(book: AssetBook) -> None:
    assert book.folder(b"upload/u1/ab") == {b"z.jpg": ASSETS[2]}
    assert book.folder(b"upload/u1/ab/cd") == {b"0.jpg": ASSETS[1], b"1.jpg": ASSETS[0]}


@pytest.mark.parametrize("path", [b"", b"upload", b"upload/u1", b"upload/u1/ab/c", b"/mnt/a", b"none"])
def test_a_folder_without_assets_is_empty(book: AssetBook, path: bytes) -> None:
    assert book.folder(path) == {}


def test_a_folder_may_be_asked_for_while_all_are_read(book: AssetBook) -> None:
    for folder, assets in book.folders():
        assert book.folder(folder) == assets


def test_what_lies_outside_comes_sorted_by_path(book: AssetBook) -> None:
    assert list(book.outside()) == [ASSETS[6], ASSETS[7], ASSETS[5]]
    assert list(book.outside()) == [ASSETS[6], ASSETS[7], ASSETS[5]]


async def test_sha1s_of_those_that_have_one(book: AssetBook) -> None:
    paths = [asset.path for asset in ASSETS if not asset.external]
    assert await book.sha1s([*paths, b"upload/none.jpg", b"1.jpg"]) == {
        asset.path: asset.sha1 for asset in ASSETS if asset.sha1 and not asset.external
    }
    assert await book.sha1s([]) == {}


def test_the_counts(book: AssetBook) -> None:
    facts = book.facts
    assert (facts.assets, facts.external, facts.trashed, facts.unhashed) == (8, 3, 2, 3)
