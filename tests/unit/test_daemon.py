"""Plug-ins in, runs out: what starts a run, what does not, and how the service ends. On fakes, in the real loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fakes import Stick, World, partition_of
from tests.support.running import daemon_on, quiet
from tests.support.telling import NOON

from immich_usb_backup.config import Config
from immich_usb_backup.errors import BusLost, ConfigError, DiskNotReady, MountFailed, StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import DeviceAction, Outcome
from immich_usb_backup.policy.report import first_report, identify


async def test_one_plug_in_runs_once_whatever_udev_repeats(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        world.devices.say(stick, DeviceAction.CHANGE)
        await running.runs(1)
        world.devices.say(stick, DeviceAction.CHANGE)
        world.devices.say(stick, DeviceAction.ADD)
        await quiet()
        assert world.outcomes == [Outcome.OK]
        world.devices.pull(stick)
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.outcomes == [Outcome.OK, Outcome.OK]
    assert world.copier.copied.count(b"u1/aa/bb/1.jpg") == 1


async def test_a_restart_does_not_run_it_again(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
    async with daemon_on(world, config) as running:
        world.devices.say(stick, DeviceAction.PRESENT)
        await running.until(lambda: world.script.steps.count("history.handled") == 2)
    assert world.outcomes == [Outcome.OK]


async def test_a_disk_that_is_there_at_the_start_counts_as_plugged_in(world: World, config: Config) -> None:
    world.devices.plug(world.stick(), DeviceAction.PRESENT)
    async with daemon_on(world, config) as running:
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


async def test_two_disks_are_done_one_after_the_other(world: World, config: Config) -> None:
    first, second = world.stick(1), world.stick(2)
    world.script.hold("copier.copy upload")
    async with daemon_on(world, config) as running:
        world.devices.plug(first)
        await running.reached("copier.copy upload")
        world.devices.plug(second)
        await running.until(lambda: Event.DISK_QUEUED in world.log.events())
        assert second.mounted_by == ""
        world.script.go_on("copier.copy upload")
        await running.runs(2)
    assert [report.disk.name for report in world.watchers.reports] == ["STICK1", "STICK2"]
    assert world.outcomes == [Outcome.OK, Outcome.OK]


async def test_a_disk_that_is_pulled_leaves_the_queue(world: World, config: Config) -> None:
    first, second = world.stick(1), world.stick(2)
    world.script.hold("copier.copy upload")
    async with daemon_on(world, config) as running:
        world.devices.plug(first)
        await running.reached("copier.copy upload")
        world.devices.plug(second)
        world.devices.pull(second)
        await quiet()
        world.script.go_on("copier.copy upload")
        await running.runs(1)
    assert [report.disk.name for report in world.watchers.reports] == ["STICK1"]
    assert world.script.steps.count("disks.find") == 1


async def test_a_stop_starts_none_of_those_that_wait(world: World, config: Config) -> None:
    first, second = world.stick(1), world.stick(2)
    world.script.hold("copier.copy upload")
    async with daemon_on(world, config) as running:
        world.devices.plug(first)
        await running.reached("copier.copy upload")
        world.devices.plug(second)
        await running.until(lambda: Event.DISK_QUEUED in world.log.events())
    await quiet()
    assert world.outcomes == [Outcome.INTERRUPTED]
    assert world.script.steps.count("disks.find") == 1


async def test_another_disk_under_the_same_device_number_ends_the_run(world: World, config: Config) -> None:
    """The remove event was lost in a burst; the new disk says enough."""
    old = world.stick(1)
    new = world.stick(2)
    number = old.seen.plug_in.device_number
    new.seen = replace(new.seen, plug_in=replace(new.seen.plug_in, device_number=number))
    world.script.hold("copier.copy upload")
    async with daemon_on(world, config) as running:
        world.devices.plug(old)
        await running.reached("copier.copy upload")
        world.devices.pull(old, tell=False)
        world.devices.plug(new)
        await running.runs(1)
        assert world.outcomes == [Outcome.INTERRUPTED]
        world.script.go_on("copier.copy upload")
        await running.runs(2)
    assert [report.disk.name for report in world.watchers.reports] == ["STICK1", "STICK2"]
    assert world.outcomes == [Outcome.INTERRUPTED, Outcome.OK]


async def test_the_watchers_hear_when_a_finished_disk_is_unplugged(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        world.devices.pull(stick)
        await running.until(lambda: "removed STICK1" in world.watchers.told)


async def test_what_is_not_eligible_leaves_one_line_with_all_the_reasons(world: World, config: Config) -> None:
    stick = world.stick()
    stick.seen = replace(stick.seen, transport="ata", file_system="ext4")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        world.devices.say(stick, DeviceAction.CHANGE)
        await running.until(lambda: len(world.log.events()) > 1)
    lines = [line for line in world.log.lines() if line.startswith("Ignored")]
    assert len(lines) == 1
    assert "connected by ata" in lines[0]
    assert "holds ext4, not exFAT" in lines[0]
    assert "disks.find" not in world.script.steps


async def test_a_disk_that_is_formatted_while_it_is_plugged_in_is_looked_at(world: World, config: Config) -> None:
    stick = world.stick()
    good = stick.seen
    stick.seen = replace(good, file_system="vfat")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_IGNORED in world.log.events())
        stick.seen = good
        world.devices.say(stick, DeviceAction.CHANGE)
        await running.runs(1)


async def test_udisks_must_see_the_same_device(world: World, config: Config) -> None:
    stick = world.stick()
    stick.connection_bus = "ieee1394"
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_IGNORED in world.log.events())
    assert "disks.mount ro" not in world.script.steps


# Unmarked disks -------------------------------------------------------------------------------------------


async def test_an_unmarked_disk_is_looked_at_read_only_and_let_go(world: World, config: Config) -> None:
    stick = world.stick(marked=False)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_UNMARKED in world.log.events())
        world.devices.say(stick, DeviceAction.CHANGE)
        await quiet()
    assert world.script.steps.count("disks.mount ro") == 1
    assert stick.mounted_by == ""
    assert [*stick.root.iterdir()] == [stick.root / "holiday.odt"]
    assert not {"disks.mount rw", "targets.open"} & set(world.script.steps)
    assert world.watchers.told == []


async def test_an_unmarked_disk_that_a_desktop_mounted_stays_mounted(world: World, config: Config) -> None:
    stick = world.stick(marked=False)
    stick.mounted_by = "desktop"
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_UNMARKED in world.log.events())
    assert stick.mounted_by == "desktop"
    assert "disks.unmount" not in world.script.steps


@pytest.mark.parametrize("step", ["disks.find", "disks.mount ro", "targets.list_root"])
async def test_a_strangers_disk_that_cannot_be_looked_at_leaves_a_line_only(
    world: World, config: Config, step: str
) -> None:
    stick = world.stick()
    world.script.fail(step, MountFailed("it is damaged"))
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_UNREADABLE in world.log.events())
    assert world.watchers.reports == []
    assert stick.mounted_by == ""


@pytest.mark.parametrize("step", ["disks.find", "disks.mount ro", "targets.list_root"])
async def test_a_known_disk_that_cannot_be_looked_at_is_a_failed_run(world: World, config: Config, step: str) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        world.devices.pull(stick)
        world.script.fail(step, DiskNotReady("it does not answer"))
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.outcomes == [Outcome.OK, Outcome.FAILED]
    assert world.report.findings[0].message == "it does not answer"
    assert set(world.outbox.reports) == set(world.history.begun)


@pytest.mark.parametrize("step", ["disks.find", "disks.mount ro", "targets.list_root", "targets.read_root_file"])
async def test_a_bug_in_looking_at_a_disk_does_not_end_the_service(world: World, config: Config, step: str) -> None:
    bad, good = world.stick(1), world.stick(2)
    world.script.fail(step, ValueError("a bug"))
    async with daemon_on(world, config) as running:
        world.devices.plug(bad)
        await running.until(lambda: Event.BUG in world.log.events())
        assert bad.mounted_by == ""
        world.devices.plug(good)
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


async def test_a_damaged_history_does_not_keep_from_looking_at_a_disk(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.fail("disks.mount ro", MountFailed("it is damaged"))
    world.script.fail("history.disk_name", StateDamaged("cannot be read"))
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_UNREADABLE in world.log.events())
        await quiet()
        world.devices.pull(stick)
        world.devices.plug_again(stick)
        await running.runs(1)


@pytest.mark.parametrize("step", ["disks.find", "disks.mount ro", "targets.list_root"])
async def test_a_disk_that_is_pulled_while_it_is_looked_at_is_forgotten(
    world: World, config: Config, step: str
) -> None:
    stick = world.stick()
    world.script.hold(step)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached(step)
        world.devices.pull(stick)
        await quiet()
        world.script.go_on(step)
        await quiet()
        world.devices.plug_again(stick)
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


@pytest.mark.parametrize("step", ["disks.mount ro", "targets.list_root"])
async def test_a_stop_while_a_disk_is_looked_at_leaves_it_unmounted(world: World, config: Config, step: str) -> None:
    """UDisks2 goes on mounting when nobody waits for its answer any more."""
    stick = world.stick()
    world.script.hold(step)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached(step)
        running.daemon.stop()
        await quiet()
        world.script.go_on(step)
    assert stick.mounted_by == ""
    assert world.watchers.reports == []


# Start, reload, end ---------------------------------------------------------------------------------------


async def test_a_run_that_was_cut_off_is_cleaned_up_recorded_and_told(world: World, config: Config) -> None:
    stick = world.stick()
    world.devices.plugged[stick.seen.plug_in] = stick
    await _cut_off(world, stick)
    async with daemon_on(world, config):
        pass
    assert stick.mounted_by == ""
    assert world.outcomes == [Outcome.INTERRUPTED]
    assert world.report.safe_to_unplug
    assert world.history.told == set(world.outbox.reports) == {"run-1"}
    assert Event.CRASHED_RUN_FOUND in world.log.events()


async def _cut_off(world: World, stick: Stick) -> None:
    stick.mounted_by = "us"
    disk = identify(stick.seen, partition_of(stick), None)
    await world.history.begin(first_report("run-1", "nas", disk, NOON), stick.seen.plug_in)


async def test_a_leftover_that_cannot_be_unmounted_is_not_called_safe(world: World, config: Config) -> None:
    stick = world.stick()
    stick.holders.append("clamscan (7)")
    world.devices.plugged[stick.seen.plug_in] = stick
    await _cut_off(world, stick)
    async with daemon_on(world, config):
        pass
    assert not world.report.safe_to_unplug


async def test_an_outcome_that_was_never_handed_on_is_handed_on_at_the_next_start(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.fail("outbox.put", StateDamaged("no room left"))
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
    assert Event.ANNOUNCE_FAILED in world.log.events()
    assert world.outbox.reports == {}
    async with daemon_on(world, config):
        pass
    assert [report.outcome for report in world.outbox.reports.values()] == [Outcome.OK]
    assert world.history.told == set(world.outbox.reports)


async def test_a_history_that_cannot_be_read_does_not_keep_the_service_from_backing_up(
    world: World, config: Config
) -> None:
    world.script.fail("history.cut_off", StateDamaged("not a database"))
    world.script.fail("history.handled", StateDamaged("not a database"))
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.runs(1)
    assert world.log.events().count(Event.FATAL) == 2
    assert world.outcomes == [Outcome.OK]


async def test_a_reload_with_mistakes_keeps_the_old_configuration(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        running.new_config = ConfigError("mistakes", problems=("config.toml: keep: must be 1 or more",))
        running.daemon.reload()
        assert running.daemon.config == config
        assert "keep: must be 1 or more" in world.log.lines()[-1]
        world.devices.plug(world.stick())
        await running.runs(1)


async def test_beginning_anew_waits_for_the_backup_and_for_those_that_wait(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        world.script.hold("copier.copy upload")
        world.devices.plug(world.stick(1))
        await running.reached("copier.copy upload")
        world.devices.plug(world.stick(2))
        running.daemon.begin_anew()
        world.script.go_on("copier.copy upload")
        await running.ended()
    assert world.outcomes == [Outcome.OK, Outcome.OK]


async def test_beginning_anew_is_at_once_when_nothing_goes_on(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        running.daemon.begin_anew()
        await running.ended()
    assert Event.BEGINS_ANEW in world.log.events()


async def test_a_reload_judges_again_what_was_ignored(world: World, config: Config) -> None:
    stick = world.stick()
    stick.seen = replace(stick.seen, transport="mmc")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_IGNORED in world.log.events())
        disks = config.disks.model_copy(update={"transports": ("usb", "mmc")})
        running.new_config = config.model_copy(update={"disks": disks})
        running.daemon.reload()
        world.devices.say(stick, DeviceAction.CHANGE)
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


async def test_a_lost_bus_ends_the_service_with_an_error(world: World, config: Config) -> None:
    with pytest.raises(BusLost):  # noqa: PT012
        async with daemon_on(world, config) as running:
            running.bus_lost.set()
            await quiet()


async def test_a_lost_bus_in_a_run_is_recorded_before_the_service_ends(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.hold("copier.copy library")
    with pytest.raises(BusLost):  # noqa: PT012
        async with daemon_on(world, config) as running:
            world.devices.plug(stick)
            await running.reached("copier.copy library")
            world.script.fail_always("disks.unmount", BusLost("The connection to D-Bus is gone"))
            running.bus_lost.set()
            await running.runs(1)
    assert world.outcomes == [Outcome.INTERRUPTED]
    assert not world.report.safe_to_unplug
    assert {finding.code for finding in world.report.findings} == {"bus-lost", "interrupted"}


async def test_once_ends_after_one_backup_and_not_after_an_unmarked_disk(world: World, config: Config) -> None:
    async with daemon_on(world, config, runs_at_most=1) as running:
        world.devices.plug(world.stick(1, marked=False))
        await running.until(lambda: Event.DISK_UNMARKED in world.log.events())
        assert not running.task.done()
        world.devices.plug(world.stick(2))
        await running.task
    assert world.outcomes == [Outcome.OK]


async def test_the_marker_names_the_disk(world: World, config: Config, tmp_path: Path) -> None:
    stick = world.stick(marked=False)
    (stick.root / "Immich-Server-Backups.txt").write_bytes(b'\xef\xbb\xbfname = "Blue"\r\n')
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
    assert world.watchers.told[0] == "started Blue"
    assert world.report.disk.name == "Blue"
    assert (stick.root / "Immich-Server-Backups.txt").exists()
    assert (stick.backups / "upload/u1/aa/bb/1.jpg").read_bytes() == b"one"
