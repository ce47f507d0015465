"""Strangers' disks, copied and revoked ones, on fakes: they are left as they were, and people are told."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.enrolling import content, looked_at, only_enrolled
from tests.support.fakes import World
from tests.support.plugging import codes
from tests.support.running import daemon_on

from immich_usb_backup.adapters.enrolments import ENROLMENTS, EnrolmentsFile
from immich_usb_backup.config import Config
from immich_usb_backup.errors import (
    DiskFull,
    DiskNotTrusted,
    StateDamaged,
)
from immich_usb_backup.events import Event
from immich_usb_backup.model import BACKUP_FOLDER, NoticeKind, Outcome
from immich_usb_backup.policy.marker import ENROLLED_MARKER


@pytest.fixture
def strict(config: Config) -> Config:
    return only_enrolled(config)


# Strangers ------------------------------------------------------------------------------------------------


async def test_a_strangers_disk_is_left_as_it_was_and_told_once_a_plug_in(world: World, strict: Config) -> None:
    stick = world.stick(label="Mine")
    before = content(stick)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        for asked in (running.daemon.asked.backup("Mine", ""), running.daemon.asked.verify("Mine", "due")):
            with pytest.raises(DiskNotTrusted, match="sdb1 is not enrolled"):
                await asked
        assert content(stick) == before
        assert "disks.mount rw" not in world.script.steps
        assert world.outcomes == []
        (notice,) = world.outbox.notices.values()
        assert (notice.kind, notice.disk_uuid) == (NoticeKind.STRANGER, stick.seen.uuid)
        assert world.watchers.told[:1] == ["notice stranger"]
        with pytest.raises(DiskNotTrusted, match="not enrolled"):
            await running.daemon.asked.plan("Mine", "")
        await looked_at(running, stick)
        assert len(world.outbox.notices) == 2


async def test_a_copied_marker_on_another_disk_does_not_pass(world: World, strict: Config) -> None:
    blue, thief = world.stick(1, marked=False), world.stick(2)
    async with daemon_on(world, strict) as running:
        await looked_at(running, blue)
        await running.daemon.asked.enroll("STICK1", "Blue")
        (thief.root / ENROLLED_MARKER).write_bytes((blue.root / ENROLLED_MARKER).read_bytes())
        before = content(thief)
        await looked_at(running, thief)
    assert content(thief) == before
    assert world.outcomes == []
    (notice,) = world.outbox.notices.values()
    assert "copy of that of 'Blue'" in "\n".join(notice.lines)


@pytest.mark.parametrize("place", [f"{BACKUP_FOLDER}.txt", f"{BACKUP_FOLDER}/marker.toml"])
async def test_the_secret_counts_in_the_file_that_enroll_makes_and_nowhere_else(
    world: World, strict: Config, place: str
) -> None:
    stick = world.stick()
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        (stick.root / ENROLLED_MARKER).rename(stick.root / place)
        await looked_at(running, stick)
    assert world.outcomes == []
    assert "does not hold the secret" in "\n".join(world.log.lines())


async def test_a_revoked_disk_does_not_pass(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        await looked_at(running, stick)
        world.devices.pull(stick)
        await running.until(lambda: stick.seen.plug_in not in world.devices.plugged)
        assert await running.daemon.asked.forget("Blue") == "Blue"
        await looked_at(running, stick)
        assert len(world.watchers.reports) == 1
        assert Event.DISK_NOT_TRUSTED in world.log.events()
        assert await running.daemon.asked.enroll("STICK1", "") == "Blue"  # its state file says that it is ours


async def test_a_disk_that_was_only_enrolled_can_be_forgotten_when_it_is_away(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        world.devices.pull(stick)
        await running.until(lambda: stick.seen.plug_in not in world.devices.plugged)
        await running.daemon.asked.forget("Blue")
    assert await world.enrolments.all() == ()


async def test_a_disk_from_before_is_told_so_and_enrolled_with_its_backup(
    world: World, config: Config, strict: Config
) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        await looked_at(running, stick)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        (notice,) = world.outbox.notices.values()
        assert "backed up to before, as 'STICK1'" in "\n".join(notice.lines)
        assert f"sudo immich-usb-backup enroll {stick.seen.device_node}" in notice.todo[0]
        await running.daemon.asked.enroll(stick.seen.device_node, "")
        await looked_at(running, stick)
    assert world.outcomes == [Outcome.OK, Outcome.OK]
    assert world.report.stages[-1].files == 0


async def test_a_damaged_list_trusts_nobody_and_says_so(world: World, strict: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, strict) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        await looked_at(running, stick)
        (world.state / ENROLMENTS).write_text('{"format": ')
        world.devices.pull(stick)
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.watchers.reports[-1].outcome is Outcome.FAILED
    assert codes(world.watchers.reports[-1]) == ["state-damaged"]


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"[]",
        b"null",
        b'{"format": "immich-usb-backup enrolments", "version": 2, "disks": []}',
        b'{"format": "immich-usb-backup enrolments", "version": 1, "disks": [{"uuid": "A"}]}',
        b'{"format": "immich-usb-backup enrolments", "version": 1, "disks": {"A": 1}}',
        b"[" * 100_000,
        b"\xff",
    ],
)
async def test_a_list_that_we_did_not_write_is_damaged(tmp_path: Path, broken: bytes) -> None:
    (tmp_path / ENROLMENTS).write_bytes(broken)
    with pytest.raises(StateDamaged):
        await EnrolmentsFile(tmp_path / ENROLMENTS).all()
    with pytest.raises(StateDamaged):
        await EnrolmentsFile(tmp_path / ENROLMENTS).revoke("A")
    assert (tmp_path / ENROLMENTS).read_bytes() == broken


# Where the marker is enough -------------------------------------------------------------------------------


async def test_the_first_backup_says_what_the_default_means_once_for_each_disk(world: World, config: Config) -> None:
    blue, red = world.stick(1), world.stick(2)
    async with daemon_on(world, config) as running:
        for stick in (blue, blue, red):
            await looked_at(running, stick)
    assert [codes(report) for report in world.watchers.reports] == [["any-marked-disk"], [], ["any-marked-disk"]]
    assert all(report.outcome is Outcome.OK for report in world.watchers.reports)
    assert world.outbox.notices == {}


async def test_it_is_said_when_the_first_one_failed_and_the_next_one_did_not(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.fail("target.flush", DiskFull("it is full"))
    async with daemon_on(world, config) as running:
        for _ in range(3):
            await looked_at(running, stick)
    assert ["any-marked-disk" in codes(report) for report in world.watchers.reports] == [False, True, False]


async def test_an_enrolled_disk_is_like_any_other_where_the_marker_is_enough(world: World, config: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, config) as running:
        await looked_at(running, stick)
        await running.daemon.asked.enroll("STICK1", "Blue")
        await looked_at(running, stick)
    assert (world.report.disk.name, world.outcomes) == ("Blue", [Outcome.OK])
