"""Which file is being copied, told from the bytes that have been."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from immich_usb_backup.policy.manifest import SourceFile
from immich_usb_backup.policy.plan import Item
from immich_usb_backup.policy.whereabouts import Whereabouts, in_copying_order

PATHS = (b"u/a/1", b"u/a/z/2", b"u/a-b/3", b"u/b/4", b"u/top", b"u/a/zz", b"u/a/A", b"u/B/5", b"u/z", b"u/a.b/6")


def item(path: bytes, size: int = 10) -> Item:
    return Item(path, path, SourceFile(size, 0, 0))


def test_the_file_follows_from_the_bytes() -> None:
    where = Whereabouts([item(b"u/1", 10), item(b"u/empty", 0), item(b"u/2\x1b", 5)])
    shown = [where.after(done) for done in (0, 9, 10, 14, 15, 99)]
    assert shown == ["u/1", "u/1", "u/2\\u001b", "u/2\\u001b", "", ""]


@pytest.mark.skipif(shutil.which("rsync") is None, reason="there is no rsync")
def test_rsync_copies_in_this_order(tmp_path: Path) -> None:
    for path in PATHS:
        file = tmp_path / "source" / path.decode()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
    command = ["rsync", "-t", "--files-from=-", "--from0", "--no-inc-recursive", "--info=name1", "source/", "disk/"]
    done = subprocess.run(command, input=b"\0".join(PATHS), cwd=tmp_path, capture_output=True, check=True)
    copied = [line for line in done.stdout.splitlines() if line in PATHS]
    assert copied == [one.path for one in in_copying_order(map(item, PATHS))]
