"""A media location on a bind mount: the device is the same one, so that only the kernel's table of mounts tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from immich_usb_backup.adapters.source import ServerFiles
from tests.support import host

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]


async def test_a_bind_mount_of_the_same_file_system_is_a_mount_point(tmp_path: Path) -> None:
    media, photos = tmp_path / "media", tmp_path / "photos"
    for folder in (media, photos / "upload"):
        folder.mkdir(parents=True)
    assert not await ServerFiles().is_mount_point(media)
    host.run("mount", "--bind", str(photos), str(media))
    try:
        assert media.stat().st_dev == tmp_path.stat().st_dev
        assert await ServerFiles().is_mount_point(media)
        assert not await ServerFiles().is_mount_point(media / "upload")
    finally:
        host.run("umount", str(media))
    assert not await ServerFiles().is_mount_point(media)
