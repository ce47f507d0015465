"""Whether a folder of the server's is where a file system is mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_usb_backup.adapters.mounts import opens_a_home
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


WALLS = rb"""96 1 0:41 / / ro,relatime shared:1 - overlay overlay rw
120 96 0:54 / /home ro,nodev shared:29 - tmpfs tmpfs rw,size=2468412k,mode=755
121 120 8:1 /alice/mnt /home/alice/mnt ro,relatime shared:30 master:1 - ext4 /dev/sda1 rw
122 120 8:1 /alice/my\040photos /home/alice/my\040photos ro,relatime shared:31 - ext4 /dev/sda1 rw
123 120 0:60 / /home/alice/nas ro,relatime shared:32 - nfs4 nas:/photos rw
131 121 0:57 / /home/alice/mnt rw,relatime shared:58 master:35 - nfs4 nas:/late rw
140 96 8:2 /photos /srv/photos ro,relatime - ext4 /dev/sdb1 rw
"""


@pytest.mark.parametrize(
    ("mount", "is_one"),
    [
        (b"122", True),  # a plain folder below /home
        (b"123", False),  # a file system that was mounted there before the service began
        (b"131", False),  # and one that came later, upon the folder that was opened
        (b"140", False),  # a bind mount of somebody's, elsewhere
        (b"99", False),
    ],
)
def test_a_folder_that_was_only_opened_to_the_service_is_no_mount_point(mount: bytes, is_one: bool) -> None:
    """Else "it was a mount point and is none now" would never be said of it, or be said when it moves out of /home."""
    assert opens_a_home(mount, WALLS) is is_one
