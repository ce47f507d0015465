"""Enrolling a disk, on fakes: what is written where, what is refused, and what a kill leaves."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.enrolling import content, looked_at, only_enrolled, secret_on
from tests.support.fakes import Stick, World
from tests.support.plugging import codes
from tests.support.running import Running, daemon_on

from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters import disk_marker
from immich_usb_backup.adapters.disk_root import open_backup_folder
from immich_usb_backup.adapters.enrolments import ENROLMENTS
from immich_usb_backup.adapters.tree import Descriptor
from immich_usb_backup.cli import asking
from immich_usb_backup.config import Config
from immich_usb_backup.errors import (
    BackupError,
    BusCallFailed,
    DiskFull,
    EnrolmentRefused,
    MarkerUnusable,
    UnmountBusy,
)
from immich_usb_backup.events import Event
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import BACKUP_FOLDER, Outcome
from immich_usb_backup.policy.marker import ENROLLED_MARKER, decode
from immich_usb_backup.requests import Refusal, Refused

TEMPORARY = disk_marker.TEMPORARY


@pytest.fixture
def strict(config: Config) -> Config:
    return only_enrolled(config)


# Enrolling ------------------------------------------------------------------------------------------------


async def test_enrolling_makes_the_marker_and_nothing_else_and_the_disk_is_backed_up_from_then_on(
    world: World, strict: Config
) -> None:
    stick = world.stick(marked=False)
    before = content(stick)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        assert await running.daemon.asked.enroll(stick.seen.device_node, "Blue") == "Blue"
        after = content(stick)
        marker = decode(after.pop(ENROLLED_MARKER))
        assert (after, marker.name) == (before, "Blue")
        assert stick.mounted_by == ""
        assert world.script.steps[-1] == "disks.unmount"
        assert world.outcomes == []
        await looked_at(running, stick)
        assert world.outcomes == [Outcome.OK]
        assert world.report.disk.name == "Blue"
        assert codes(world.report) == []
        assert await running.daemon.asked.backup("Blue", "") == "Blue"


async def test_the_server_keeps_no_secret_and_keeps_it_to_itself(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "")
    file = world.state / ENROLMENTS
    assert secret_on(stick)
    assert secret_on(stick) not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert all(secret_on(stick) not in path.read_text("latin-1") for path in world.state.rglob("*") if path.is_file())
    assert secret_on(stick) not in str(world.log.said)
    (known,) = json.loads(file.read_text())["disks"]
    assert (known["uuid"], known["name"]) == (stick.seen.uuid, "STICK1")


async def test_a_name_works_at_once_in_commands(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        assert await running.daemon.asked.backup("Blue", "") == "Blue"
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


async def test_an_owners_folder_and_files_stay_and_the_new_name_counts(world: World, strict: Config) -> None:
    stick = world.stick()
    (stick.backups / "marker.toml").write_text('name = "Old"\n')
    (stick.root / f"{BACKUP_FOLDER}.txt").write_text('name = "Older"\n')
    before = content(stick)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        assert {name: data for name, data in content(stick).items() if name != ENROLLED_MARKER} == before
        await looked_at(running, stick)
    assert (world.report.disk.name, world.report.outcome) == ("Blue", Outcome.OK)


async def test_enrolling_again_writes_nothing_and_a_new_name_keeps_the_secret(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        secret, writes = secret_on(stick), world.script.steps.count("disks.mount rw")
        assert await running.daemon.asked.enroll("Blue", "") == "Blue"
        assert world.script.steps.count("disks.mount rw") == writes
        stick.mounted_by = "a desktop"
        await running.daemon.asked.enroll("Blue", "Blue")
        assert stick.mounted_by == ""
        assert await running.daemon.asked.enroll("Blue", "Red") == "Red"
    assert decode((stick.root / ENROLLED_MARKER).read_bytes()).name == "Red"
    assert secret_on(stick) == secret
    assert [one.name for one in await world.enrolments.all()] == ["Red"]


async def refusal_of(running: Running, stick: Stick, name: str = "Blue") -> BackupError:
    """Refused, and nothing changed."""
    before = content(stick)
    with pytest.raises(BackupError) as refused:
        await running.daemon.asked.enroll(stick.seen.device_node, name)
    assert content(stick) == before
    assert stick.mounted_by == ""
    assert await running.world.enrolments.all() == ()
    return refused.value


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file_system": "vfat"}, "it holds vfat, not exFAT"),
        ({"transport": "ata"}, "it is connected by ata"),
        ({"has_partitions": True, "file_system": ""}, "divided into partitions"),
    ],
)
async def test_what_is_never_backed_up_to_is_not_enrolled(
    world: World, strict: Config, change: dict[str, object], reason: str
) -> None:
    stick = world.stick(marked=False)
    stick.seen = replace(stick.seen, **change)  # type: ignore[arg-type]
    async with daemon_on(world, strict) as running:
        world.devices.plug(stick)
        await running.until(lambda: len(world.log.said) > 1)
        found = await refusal_of(running, stick)
    assert isinstance(found, Refused)
    assert (found.why, reason in found.message) == (Refusal.NO_SUCH_DISK, True)


async def test_a_write_protected_disk_and_a_bad_name_are_refused(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        assert isinstance(await refusal_of(running, stick, "a\nb"), EnrolmentRefused)
        assert isinstance(await refusal_of(running, stick, "x" * 61), EnrolmentRefused)
        stick.write_protected = True
        assert "write-protected" in (await refusal_of(running, stick)).message


async def test_another_servers_disk_is_refused_until_it_is_adopted(world: World, strict: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        await looked_at(running, stick)
    other = World(world.state / "another-server")
    other.devices.plug(stick)
    async with daemon_on(other, strict) as running:
        await running.until(lambda: Event.DISK_NOT_TRUSTED in other.log.events())
        found = await refusal_of(running, stick)
        assert "another server, 'nas'" in found.message
        await running.daemon.asked.adopt(stick.seen.device_node)
        await running.until(lambda: other.log.events().count(Event.DISK_NOT_TRUSTED) > 1)
        await running.daemon.asked.enroll(stick.seen.device_node, "")
        assert await running.daemon.asked.backup("Blue", "") == "Blue"
        await running.runs(1)
    assert other.outcomes == [Outcome.OK]


@pytest.mark.parametrize("make", ["folder", "huge", "link"])
async def test_what_has_the_markers_name_and_is_none_stays(world: World, strict: Config, make: str) -> None:
    stick = world.stick(marked=False)
    place = stick.root / ENROLLED_MARKER
    if make == "folder":
        place.mkdir()
    elif make == "link":
        place.symlink_to("holiday.odt")
    else:
        place.touch()
        os.truncate(place, 10 * 10**9)  # sparse
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        with pytest.raises(MarkerUnusable):
            await running.daemon.asked.enroll("STICK1", "Blue")
    assert (place.is_dir(), place.is_symlink()) == (make == "folder", make == "link")
    assert (stick.root / "holiday.odt").read_bytes() == b"mine"
    assert sorted(path.name for path in stick.root.iterdir()) == ["holiday.odt", ENROLLED_MARKER]
    assert stick.mounted_by == ""


async def test_a_disk_that_was_just_plugged_in_is_looked_at_first(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    world.script.hold("disks.mount ro")
    async with daemon_on(world, strict) as running:
        world.devices.plug(stick)
        await running.reached("disks.mount ro")
        asked = asyncio.ensure_future(running.daemon.asked.enroll("STICK1", "Blue"))
        await asyncio.sleep(0)
        assert "disks.mount rw" not in world.script.steps
        world.script.go_on("disks.mount ro")
        assert await asked == "Blue"


async def test_a_write_that_fails_unmounts_and_the_command_can_be_given_again(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        world.script.fail("targets.write_marker", DiskFull("it is full"))
        with pytest.raises(DiskFull):
            await running.daemon.asked.enroll("STICK1", "Blue")
        assert stick.mounted_by == ""
        assert await running.daemon.asked.enroll("STICK1", "Blue") == "Blue"
        await looked_at(running, stick)
    assert world.outcomes == [Outcome.OK]


async def test_success_is_not_said_of_a_disk_that_is_still_mounted(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        world.script.do_at("targets.write_marker", lambda: stick.holders.append("clamscan (7)"))
        with pytest.raises(UnmountBusy, match="is enrolled, but could not be unmounted"):
            await running.daemon.asked.enroll("STICK1", "Blue")
    assert Event.DISK_ENROLLED not in world.log.events()


# Cut off --------------------------------------------------------------------------------------------------


async def test_a_service_that_was_killed_while_it_enrolled_leaves_no_mount_and_nothing_half_written(
    world: World, strict: Config
) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        world.script.hold("targets.write_marker")
        asked = asyncio.ensure_future(running.daemon.asked.enroll("STICK1", "Blue"))
        await running.reached("targets.write_marker")
        killed = content(stick)
        world.script.go_on("targets.write_marker")
        await asked
    (stick.root / ENROLLED_MARKER).unlink()
    assert content(stick) == killed
    (stick.root / TEMPORARY).write_bytes(b"name = ")
    stick.mounted_by, stick.read_only_mount = "us", False
    async with daemon_on(world, strict) as running:
        assert content(stick) == killed
        assert stick.mounted_by == ""
        assert Event.ENROLMENT_CUT_OFF in world.log.events()
        await looked_at(running, stick)
        assert await running.daemon.asked.enroll(stick.seen.device_node, "Blue") == "Blue"
        await looked_at(running, stick)
    assert world.outcomes == [Outcome.OK]


@pytest.mark.parametrize("step", ["_write_new", "read_small", "rename", "fsync"])
@pytest.mark.parametrize("before", [None, b'name = "Old"\n'])
def test_a_marker_is_there_whole_or_not_at_all_wherever_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bytes | None
) -> None:
    """What is on the disk at the moment of each step, as a kill would leave it; then an error there."""
    new, seen = b'name = "Blue"\n', []
    if before is not None:
        (tmp_path / ENROLLED_MARKER).write_bytes(before)

    def stop(*_: object, **__: object) -> None:
        seen.append((tmp_path / ENROLLED_MARKER).read_bytes() if (tmp_path / ENROLLED_MARKER).exists() else None)
        raise OSError(5, "input/output error")

    owner: object = os if step in {"rename", "fsync"} else disk_marker
    monkeypatch.setattr(owner, step, stop)
    with Descriptor.open(tmp_path) as root, pytest.raises(OSError, match="input/output"):
        disk_marker.write(root.fd, new, lambda: None)
    assert seen in ([before], [new])
    monkeypatch.undo()
    assert not (tmp_path / TEMPORARY).exists()


def test_what_is_left_over_is_no_marker_and_is_written_over(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    (tmp_path / TEMPORARY).symlink_to("precious")
    with Descriptor.open(tmp_path) as root:
        disk_marker.write(root.fd, b"new", lambda: None)
    assert (tmp_path / ENROLLED_MARKER).read_bytes() == b"new"
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [ENROLLED_MARKER, "precious"]


@pytest.mark.parametrize("left", ["file", "folder", "nothing"])
def test_a_backup_removes_what_an_enrolling_left_half_written(tmp_path: Path, left: str) -> None:
    if left == "folder":
        (tmp_path / TEMPORARY).mkdir()
    elif left == "file":
        (tmp_path / TEMPORARY).write_bytes(b"name =")
    with Descriptor.open(tmp_path) as root:
        open_backup_folder(root.fd, None).close()
    assert {path.name for path in tmp_path.iterdir()} - {BACKUP_FOLDER} == ({TEMPORARY} if left == "folder" else set())


# The command ----------------------------------------------------------------------------------------------


def said_by(monkeypatch: pytest.MonkeyPatch, answer: str | Exception) -> list[tuple[str, ...]]:
    """What the service is asked; it answers so."""
    asked: list[tuple[str, ...]] = []

    async def call(member: str, words: list[str], timeout: float) -> object:
        asked.append((member, *words))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(asking, "_call", call)
    return asked


def test_the_command_says_that_the_disk_may_go_and_when_its_backup_begins(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = said_by(monkeypatch, "Blue\x1b[2J")
    assert main(["enroll", "STICK", "--name", "Blue"]) == ExitCode.OK
    assert asked == [("Enroll", "STICK", "Blue")]
    said = capsys.readouterr().out
    assert "'Blue\\u001b[2J' is enrolled on this server, and unmounted: safe to unplug." in said
    assert "when it is plugged in again" in said


@pytest.mark.parametrize(("kind", "code"), [("NoSuchDisk", ExitCode.NOT_HERE), ("Failed", ExitCode.PROBLEM)])
def test_a_refusal_is_shown_in_its_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str, code: ExitCode
) -> None:
    error = BusCallFailed(f"io.github.immich_usb_backup1.Error.{kind}", "It holds vfat, not exFAT")
    said_by(monkeypatch, error)
    assert main(["enroll", "STICK"]) == code
    assert "It holds vfat, not exFAT" in capsys.readouterr().err
