"""A restore that ends early: killed, stopped, out of room, the disk pulled. It says so, and the next one finishes it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.support import samples
from tests.support.backup_folder import make_backup

from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters.threads import Pulse
from immich_usb_backup.adapters.tree import Opener
from immich_usb_backup.adapters.walk import walk
from immich_usb_backup.model import BACKUP_FOLDER
from immich_usb_backup.policy.restore import FOLDERS, ORIGINALS, STAGING
from immich_usb_backup.restore import files, listing, restoring, source
from immich_usb_backup.restore.target import Target

KILLED = """
import os, signal, sys
from immich_usb_backup.__main__ import main
from immich_usb_backup.restore import files
from immich_usb_backup.restore.target import Target

where, name, number = {"target": Target, "files": files}[sys.argv[1]], sys.argv[2], int(sys.argv[3])
real, calls = getattr(where, name), 0

def last(*arguments, **options):
    global calls
    calls += 1
    if calls < number:
        return real(*arguments, **options)
    if name == "_write":
        arguments[0].write(arguments[1][:100])
    os.kill(os.getpid(), signal.SIGKILL)

setattr(where, name, last)
files.BATCH_FILES = 4
main(sys.argv[4:])
"""


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return samples.make_media_location(tmp_path / "media", photos=30).path


@pytest.fixture
def disk(tmp_path: Path, media: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(files, "BATCH_FILES", 4)
    make_backup(tmp_path / "disk", media)
    return tmp_path / "disk"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "restored"


def arguments(disk: Path, to: Path, *more: str) -> list[str]:
    return ["restore", "--from", str(disk), "--to", str(to), *more]


def contents(root: Path) -> dict[str, bytes]:
    """The files below the folders of the originals, no marks, nothing that waits."""
    found = (path for folder in ORIGINALS for path in (root / folder).rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in found
        if path.name != ".immich" and STAGING not in path.parts
    }


def assert_cut_off(media: Path, to: Path) -> None:
    """What has a name is whole, and Immich would not start on it."""
    assert contents(to).items() < contents(media).items()
    assert list(to.rglob(".immich")) == []


def assert_finished(disk: Path, media: Path, to: Path) -> None:
    assert main(arguments(disk, to)) == 0
    assert contents(to) == contents(media)
    assert {path.parent.name for path in to.rglob(".immich")} == set(FOLDERS)
    assert list(to.rglob(f"{STAGING}*")) == []


@pytest.mark.parametrize(
    ("where", "name", "number"),
    [
        ("files", "_write", 1),
        ("files", "_write", 7),
        ("target", "create", 3),
        ("target", "flush", 1),
        ("target", "flush", 3),
        ("target", "place", 2),
        ("target", "place", 11),
        ("target", "put", 1),
    ],
)
def test_killed_anywhere_it_leaves_no_half_file_and_goes_on(
    disk: Path, media: Path, to: Path, where: str, name: str, number: int
) -> None:
    command = [sys.executable, "-c", KILLED, where, name, str(number), *arguments(disk, to)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    if name == "put":  # all files are there, the marks are not
        assert (contents(to), list(to.rglob(".immich"))) == (contents(media), [])
    else:
        assert_cut_off(media, to)
    assert_finished(disk, media, to)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_hand_it_says_so_and_goes_on(
    disk: Path,
    media: Path,
    to: Path,
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, calls = Target.place, 0

    def place(self: Target, *arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 7:
            os.kill(os.getpid(), number)
            while True:  # until the loop has taken the signal
                waiting.beat()
        real(self, *arguments)

    waiting = Pulse()
    monkeypatch.setattr(Pulse, "__new__", lambda _: waiting)
    monkeypatch.setattr(Target, "place", place)
    assert main(arguments(disk, to)) == 1
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert "Stopped: you stopped it" in said
    assert "6 files" in said
    assert "Run the same command again: it goes on where it stopped" in said
    assert list(to.rglob(f"{STAGING}*")) == []
    assert_cut_off(media, to)
    assert_finished(disk, media, to)


def test_a_target_that_fills_up_stops_it_with_a_name(
    disk: Path, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real, calls = files._write, 0

    def write(*arguments: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(*arguments)

    monkeypatch.setattr(files, "_write", write)
    assert main(arguments(disk, to)) == 1
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert f"Stopped: There is no room left in {to}" in said
    assert_cut_off(media, to)
    assert_finished(disk, media, to)


def test_too_little_room_is_found_out_first(
    disk: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = os.statvfs

    def statvfs(path: Any) -> os.statvfs_result:
        facts = list(real(path))
        facts[0], facts[1], facts[4] = 4096, 4096, 100
        return os.statvfs_result(facts)

    monkeypatch.setattr(os, "statvfs", statvfs)
    assert main(arguments(disk, to)) == 69
    assert not to.exists()
    assert "There is not enough room" in capsys.readouterr().err


def unreadable(monkeypatch: pytest.MonkeyPatch, which: set[int], number: int) -> None:
    """Let the opening of some of the disk's files fail."""
    real, calls = Opener.open, 0

    def opened(self: Opener, path: bytes) -> Any:
        nonlocal calls
        if path.startswith((b"upload/", b"library/")):
            calls += 1
            if calls in which:
                raise OSError(number, os.strerror(number))
        return real(self, path)

    monkeypatch.setattr(restoring, "Opener", type("Failing", (Opener,), {"open": opened}))


def test_a_bad_sector_costs_one_file(
    disk: Path, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unreadable(monkeypatch, {2, 9}, errno.EIO)
    assert main(arguments(disk, to)) == 1
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert "2 files: cannot be read from the disk" in said
    assert "Input/output error" in said
    assert len(contents(to)) == len(contents(media)) - 2
    assert_finished(disk, media, to)


def test_a_folder_that_cannot_be_read_costs_what_is_in_it(
    disk: Path, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = min((disk / BACKUP_FOLDER / "upload").rglob("*.jpg")).relative_to(disk / BACKUP_FOLDER)
    lost = os.fsencode(photo.parents[1])
    real = walk

    def fails(root: int, start: bytes = b"", **options: Any) -> Any:
        if start == lost:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(root, start, **options)

    monkeypatch.setattr(listing, "walk", fails)
    assert main(arguments(disk, to)) == 1
    said = capsys.readouterr().out
    assert f"{photo}: Input/output error" in said
    assert "but not on the disk" not in said
    inside = {path for path in contents(media) if path.startswith(os.fsdecode(lost) + "/")}
    assert contents(to).keys() == contents(media).keys() - inside


def test_many_bad_sectors_are_no_dead_disk(
    disk: Path, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    unreadable(monkeypatch, set(range(1, 30, 2)), errno.EIO)
    assert main(arguments(disk, to)) == 1
    assert "Stopped" not in capsys.readouterr().out
    assert len(contents(to)) == len(contents(media)) - 15


@pytest.mark.parametrize(("which", "number"), [(set(range(5, 100)), errno.EIO), ({5}, errno.ENODEV)])
def test_a_disk_that_is_gone_stops_it_with_a_name(
    disk: Path,
    media: Path,
    to: Path,
    which: set[int],
    number: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    unreadable(monkeypatch, which, number)
    assert main(arguments(disk, to)) == 1
    monkeypatch.undo()
    said = capsys.readouterr().out
    assert "Stopped: The disk with the backup" in said
    assert "Plug the disk in again" in said
    assert len(contents(to)) == 4  # all that could be read
    assert_cut_off(media, to)
    assert_finished(disk, media, to)


def test_a_disk_that_is_gone_before_a_folder_is_listed_is_called_so_too(
    disk: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = source.names  # type: ignore[attr-defined]

    def names(at: int, folder: str, *, folders: bool) -> tuple[str, ...]:
        if folder == "database":
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        return real(at, folder, folders=folders)

    monkeypatch.setattr(source, "names", names)
    assert main(arguments(disk, to)) == 69
    assert "The disk with the backup was unplugged" in capsys.readouterr().err


def test_what_the_target_did_not_keep_is_not_put_in_place(
    disk: Path, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = Target.flush

    def flush(self: Target, fd: int) -> None:
        real(self, fd)
        if "0" in os.listdir(fd):
            changed = os.open("0", os.O_WRONLY, dir_fd=fd)
            os.pwrite(changed, b"rotten", 1000)
            os.close(changed)

    monkeypatch.setattr(Target, "flush", flush)
    assert main(arguments(disk, to)) == 1
    monkeypatch.undo()
    assert "what was read back is not what was written" in capsys.readouterr().out
    assert contents(to).items() < contents(media).items()
    assert_finished(disk, media, to)


def test_what_takes_a_files_place_meanwhile_is_left_alone(
    disk: Path, media: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = min((disk / BACKUP_FOLDER / "upload").rglob("*.jpg")).relative_to(disk / BACKUP_FOLDER)
    real = Target.flush

    def flush(self: Target, fd: int) -> None:
        real(self, fd)
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        if not (to / path).exists():
            (to / path).write_text("Immich was running")

    monkeypatch.setattr(Target, "flush", flush)
    assert main(arguments(disk, to)) == 1
    assert (to / path).read_text() == "Immich was running"
