"""From a library to an exFAT disk by the real daemon, and from the disk alone back again, with a real PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.policy.restore import FOLDERS, ORIGINALS
from immich_usb_backup.restore import files, preparing
from immich_usb_backup.restore.target import Target
from tests.integration.test_plug_in import Server, plug_in
from tests.support import host, samples

pytestmark = [
    pytest.mark.host,
    pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable())),
]


@pytest.fixture
def server(tmp_path: Path, bus: host.Bus) -> Server:
    """A library with every odd name, links, and a dump by a real PostgreSQL."""
    media = samples.make_media_location(tmp_path / "immich", photos=12, hostile_names=True)
    (media.path / "library/admin/best").symlink_to("2024/f 1.8.")
    samples.real_dump(media.path / "backups", location=media)
    return Server(tmp_path, bus, media)


@pytest.fixture
def disk(bus: host.Bus) -> Iterator[host.Disk]:
    """A marked disk that is not plugged in yet."""
    with host.exfat_disk(128, "Blue", populate=host.make_marker) as found:
        found.detach()
        yield found


@contextlib.contextmanager
def mounted_read_only(disk: host.Disk) -> Iterator[Path]:
    with host.exfat_mounts(), host.temporary_folder() as folder:
        host.run("mount", "-t", "exfat", "-o", "ro,nosuid,nodev", str(disk.device), str(folder))
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


def listing(root: Path) -> dict[bytes, object]:
    """Hash, time and owner's permissions of each original, target of each link; no marks."""
    found: dict[bytes, object] = {}
    for folder in ORIGINALS:
        for above, folders, names in os.walk(os.fsencode(root / folder)):
            for name in (*folders, *names):
                path = above + b"/" + name
                key = os.path.relpath(path, os.fsencode(root))
                if os.path.islink(path):
                    found[key] = os.readlink(path)
                elif name in names and name != b".immich":
                    content = Path(os.fsdecode(path)).read_bytes()
                    found[key] = (hashlib.sha1(content).hexdigest(), os.stat(path).st_mtime_ns)
    return found


def answers(folder: int) -> bool:
    """Whether the disk of an open folder still does."""
    with contextlib.suppress(OSError):
        return bool(os.listdir(folder))
    return False


async def _run(server: Server, disk: host.Disk) -> str:
    async with server.daemon() as daemon:
        return str((await plug_in(daemon, disk))["outcome"])


def backed_up(server: Server, disk: host.Disk) -> None:
    """One backup; then the server forgets everything, and the disk is plugged in elsewhere."""
    assert asyncio.run(_run(server, disk)) in ("ok", "partial")
    disk.detach()
    shutil.rmtree(server.folder / "state")
    disk.attach()


def stranger(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command on a machine that has Python and a checkout."""
    command = [sys.executable, "-S", "-m", "immich_usb_backup", "restore", *arguments]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).resolve().parents[2] / "daemon")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_a_stranger_brings_library_and_database_back(server: Server, disk: host.Disk, tmp_path: Path) -> None:
    backed_up(server, disk)
    to = tmp_path / "restored"
    with samples.postgres() as cluster:
        cluster.psql("CREATE DATABASE fresh TEMPLATE template0", database="postgres")
        url = f"postgresql://postgres@/fresh?host={cluster.socket}"
        with mounted_read_only(disk) as root:
            unpacked = stranger("--from", str(root), "--only", "config", "--to", str(tmp_path))
            dry = stranger("--from", str(root), "--to", str(to), "--database", url, "--dry-run")
            assert (dry.returncode, to.exists()) == (0, False), dry
            done = stranger("--from", str(root), "--to", str(to), "--database", url, "--owner", "1234:2345")
        assert (unpacked.returncode, done.returncode) == (0, 0), done
        assets = cluster.psql("SELECT count(*) FROM asset", database="fresh").strip()
    assert listing(to) == listing(server.media.path)
    assert {path.parent.name for path in to.rglob(".immich")} == set(FOLDERS)
    assert {path.lstat().st_uid for path in to.rglob("*")} == {1234}
    assert int(assets) == len(server.media.photos) + 2
    assert len(list(tmp_path.glob("config-*/**/docker-compose.yml"))) == 1
    newest = max(path.name for path in (server.media.path / "backups").glob("immich-db-backup-*-v*"))
    assert [path.name for path in (to / "backups").glob("*.gz")] == [newest]


def test_a_plain_copy_of_the_folder_will_do(server: Server, disk: host.Disk, tmp_path: Path) -> None:
    backed_up(server, disk)
    with mounted_read_only(disk) as root:
        host.run("cp", "-r", str(root / "immich-server-backups"), str(tmp_path / "copy"))
    done = stranger("--from", str(tmp_path / "copy"), "--to", str(tmp_path / "restored"))
    assert done.returncode == 0, done
    assert listing(tmp_path / "restored") == listing(server.media.path)


def test_what_immich_moved_after_the_dump_lies_where_the_restored_database_looks_for_it(
    server: Server, disk: host.Disk, tmp_path: Path
) -> None:
    before = listing(server.media.path)
    new = server.media.path / "library/admin/2025/moved: later.jpg"
    new.parent.mkdir(parents=True)
    (server.media.path / server.media.photos[0].path).rename(new)
    sidecar = Path(f"{server.media.path / server.media.photos[0].path}.xmp")
    sidecar.rename(f"{new}.xmp")
    backed_up(server, disk)
    to = tmp_path / "restored"
    with samples.postgres() as cluster, mounted_read_only(disk) as root:
        cluster.psql("CREATE DATABASE fresh TEMPLATE template0", database="postgres")
        done = stranger(
            "--from", str(root), "--to", str(to), "--database", f"postgresql://postgres@/fresh?host={cluster.socket}"
        )
        paths = cluster.psql('SELECT "originalPath" FROM asset', database="fresh")
    assert done.returncode == 0, done
    assert "1 photo was put where the database expects it" in done.stdout
    assert listing(to) == before
    assert f"/{server.media.photos[0].path}\n" in f"{paths}\n"


def test_a_disk_that_is_pulled_in_the_middle_stops_it_and_the_next_run_finishes(
    server: Server,
    disk: host.Disk,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    backed_up(server, disk)
    to = tmp_path / "restored"
    real, calls = Target.place, 0
    with mounted_read_only(disk) as root, ThreadPoolExecutor(1) as hand:
        backup = os.open(root / "immich-server-backups", os.O_RDONLY)

        def place(self: Target, *arguments: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 5:
                hand.submit(disk.detach, pull=True)
                host.wait_until(lambda: not answers(backup), "the disk is gone")
                os.close(backup)  # the loop device goes only when nobody has a file open
            real(self, *arguments)

        monkeypatch.setattr(Target, "place", place)
        monkeypatch.setattr(files, "BATCH_FILES", 4)
        code = main(["restore", "--from", str(root), "--to", str(to)])
    assert not disk.attached
    said = capsys.readouterr()
    assert code == 1, said
    assert "Stopped: The disk with the backup" in said.out, said.out
    assert "Run the same command again" in said.out
    whole = listing(server.media.path)
    assert 0 < len(listing(to)) < len(whole)
    assert listing(to).items() <= whole.items()
    assert list(to.rglob(".immich")) == []
    monkeypatch.undo()
    disk.attach()
    with mounted_read_only(disk) as root:
        assert stranger("--from", str(root), "--to", str(to)).returncode == 0
    assert listing(to) == whole


@pytest.fixture
def small(tmp_path: Path, server: Server) -> Iterator[Path]:
    """A file system that holds half of the library."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = sum(path.stat().st_size for path in server.media.path.rglob("*") if path.is_file())
    host.run("mount", "-t", "tmpfs", "-o", f"size={size // 2}", "tmpfs", str(folder))
    yield folder
    host.run("umount", str(folder))


def test_a_target_without_room_is_found_out_first(server: Server, disk: host.Disk, small: Path) -> None:
    backed_up(server, disk)
    with mounted_read_only(disk) as root:
        done = stranger("--from", str(root), "--to", str(small))
    assert done.returncode == 69
    assert "There is not enough room" in done.stderr
    assert list(small.iterdir()) == []


def test_a_target_that_fills_up_is_named_and_goes_on_with_more_room(
    server: Server, disk: host.Disk, small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backed_up(server, disk)
    monkeypatch.setattr(preparing, "_look_for_room", lambda *_: None)
    with mounted_read_only(disk) as root:
        assert main(["restore", "--from", str(root), "--to", str(small)]) == 1
        assert f"Stopped: There is no room left in {small}" in capsys.readouterr().out
        assert listing(small).items() < listing(server.media.path).items()
        host.run("mount", "-o", "remount,size=512m", str(small))
        assert main(["restore", "--from", str(root), "--to", str(small)]) == 0
    assert listing(small) == listing(server.media.path)
