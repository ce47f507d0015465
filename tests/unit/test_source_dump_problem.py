"""A dump is good only when its whole gzip stream says so: real gzip files, cut and bent in every way."""

from __future__ import annotations

import gzip
import random
from pathlib import Path

import pytest
from tests.support import samples

from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.errors import SourceUnreadable

TEXT = samples.dump_text([]).encode() + b""
BIG = TEXT.replace(b"SET client_encoding", b"-- " + random.Random(1).randbytes(3 << 20).hex().encode() + b"\nSET", 1)


async def _problem(path: Path, content: bytes) -> str | None:
    path.write_bytes(content)
    return await ServerFiles().dump_problem(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "immich-db-backup-20261120T020000-v2.5.2-pg14.19.sql.gz"


@pytest.mark.parametrize("text", [TEXT, BIG, samples.dump_text([], cluster=True, old=True).encode()])
async def test_a_whole_dump_is_good(path: Path, text: bytes) -> None:
    assert await _problem(path, gzip.compress(text)) is None


async def test_a_dump_in_several_gzip_members_is_good(path: Path) -> None:
    """As `gzip --rsyncable` and `cat` make them."""
    assert await _problem(path, gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])) is None


async def test_no_cut_dump_is_good(path: Path) -> None:
    whole = gzip.compress(TEXT)
    for length in range(0, len(whole), 7):
        assert await _problem(path, whole[:length]), length
    assert await _problem(path, whole[:-1])


async def test_no_cut_big_dump_is_good(path: Path) -> None:
    whole = gzip.compress(BIG, 1)
    for length in (1, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        assert await _problem(path, whole[:length]), length


async def test_no_bent_dump_is_good(path: Path) -> None:
    """Any bit of the compressed data and of its check sum."""
    whole = gzip.compress(TEXT, mtime=0)
    for position in range(10, len(whole), 11):
        bent = bytearray(whole)
        bent[position] ^= 1 << position % 8
        assert await _problem(path, bytes(bent)), position


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "it is empty"),
        (b"<html>502</html>", "does not begin like a dump"),
        (TEXT[: len(TEXT) // 2], "its end is missing"),
        (TEXT + b"x" * 5000, "its end is missing"),
    ],
)
async def test_whole_gzip_files_of_something_else_are_told(path: Path, text: bytes, problem: str) -> None:
    assert problem in str(await _problem(path, gzip.compress(text)))


@pytest.mark.parametrize("content", [b"", b"plain text", b"\x1f\x8b", b"\0" * 100])
async def test_what_is_no_gzip_is_told(path: Path, content: bytes) -> None:
    assert await _problem(path, content)


async def test_junk_behind_the_end_is_told(path: Path) -> None:
    assert await _problem(path, gzip.compress(TEXT) + b"junk")


async def test_what_cannot_be_opened_is_another_matter(path: Path) -> None:
    for wrong in (path, path.parent):
        with pytest.raises(SourceUnreadable):
            await ServerFiles().dump_problem(wrong)
