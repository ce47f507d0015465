"""Whether a folder of the server's is where a file system is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.errors import SourceUnreadable


@pytest.mark.parametrize("path", ["/", "/proc"])
async def test_a_mount_point_is_one(path: str) -> None:
    assert await ServerFiles().is_mount_point(Path(path))


async def test_a_plain_folder_is_none(tmp_path: Path) -> None:
    assert not await ServerFiles().is_mount_point(tmp_path)
    assert not await ServerFiles().is_mount_point(Path("/proc/self"))


async def test_a_link_to_a_mount_point_is_one(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc")
    assert await ServerFiles().is_mount_point(tmp_path / "link")


async def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreadable):
        await ServerFiles().is_mount_point(tmp_path / "missing")
