"""What a person sees of disks and runs, and how runs are cancelled, forgotten and tried again. Runs are real, disks fake."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import Stick, World
from tests.support.running import Running, daemon_on, quiet

from immich_usb_backup.config import Config
from immich_usb_backup.events import Event
from immich_usb_backup.model import Finding, Mode, Outcome, Severity, Stage, Trigger
from immich_usb_backup.policy.disk_facts import DiskFacts, DiskState
from immich_usb_backup.requests import Refusal, Refused

COPYING = "copier.copy upload"


async def refused(call: Coroutine[Any, Any, Any]) -> Refused:
    with pytest.raises(Refused) as refusal:
        await call
    return refusal.value


async def plugged(running: Running, stick: Stick) -> None:
    """Plug it in; it has its run."""
    before = len(running.world.watchers.reports)
    running.world.devices.plug(stick)
    await running.runs(before + 1)


async def the_disk(running: Running) -> DiskFacts:
    (disk,) = await running.daemon.asked.disks()
    return disk


# What is told ---------------------------------------------------------------------------------------------


async def test_a_disk_is_told_from_its_first_plugging_in_to_its_absence(world: World, config: Config) -> None:
    stick = world.stick()
    changes: list[None] = []
    world.script.hold(COPYING)
    async with daemon_on(world, config) as running:
        running.daemon.asked.watch(lambda: changes.append(None))
        assert await running.daemon.asked.disks() == ()
        world.devices.plug(stick)
        await running.reached(COPYING)
        disk = await the_disk(running)
        assert (disk.name, disk.state, disk.last) == ("STICK1", DiskState.RUNNING, None)
        world.script.go_on(COPYING)
        await running.runs(1)
        disk = await the_disk(running)
        assert (disk.state, disk.device, disk.strip) == (DiskState.IDLE, stick.seen.device_node, "o")
        assert disk.last is not None
        assert disk.good == disk.last.ended
        told = len(changes)
        world.devices.pull(stick)
        await running.until(lambda: "removed STICK1" in world.watchers.told)
        assert (await the_disk(running)).state is DiskState.ABSENT
        assert len(changes) > told, "whoever watches is told of the pull"


async def test_a_disk_that_waits_is_told_so(world: World, config: Config) -> None:
    world.script.hold(COPYING)
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick(1))
        await running.reached(COPYING)
        world.devices.plug(world.stick(2))
        await running.until(lambda: Event.DISK_QUEUED in world.log.events())
        states = {disk.label: disk.state for disk in await running.daemon.asked.disks()}
        assert states == {"STICK1": DiskState.RUNNING, "STICK2": DiskState.WAITING}
        world.script.go_on(COPYING)
        await running.runs(2)


async def test_a_disk_that_may_not_be_backed_up_to_is_told_where_it_is_known(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        await plugged(running, stick)
        world.devices.pull(stick)
        stick.seen = replace(stick.seen, transport="ata")
        world.devices.plug_again(stick)
        stranger = world.stick(2)
        stranger.seen = replace(stranger.seen, transport="ata")
        world.devices.plug(stranger)
        await quiet()
        disk = await the_disk(running)
        assert "connected by ata" in disk.reasons[0]


async def test_a_report_says_how_it_went_and_why_it_began(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        await running.daemon.asked.backup("STICK1", "verify")
        await running.runs(2)
        await running.daemon.asked.backup("STICK1", "", trigger=Trigger.SCHEDULE)
        await running.runs(3)
        runs = await running.daemon.asked.runs("STICK1", 9, failed=False)
        assert [(run.mode, run.trigger) for run in runs] == [
            (Mode.QUICK, Trigger.SCHEDULE),
            (Mode.VERIFY, Trigger.ASKED),
            (Mode.QUICK, Trigger.PLUG_IN),
        ]
        assert all(one.mode for one in world.history.begun.values()), "also of a run that would be cut off"
        assert await running.daemon.asked.runs("", 9, failed=True) == ()
        assert (await refused(running.daemon.asked.runs("Green", 9, failed=False))).why is Refusal.NO_SUCH_DISK
        assert (await refused(running.daemon.asked.report("none"))).why is Refusal.NO_SUCH_RUN
        assert await running.daemon.asked.report(runs[0].run_id) == runs[0]


# Cancelling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("called", ["", "STICK1"])
async def test_a_cancelled_run_says_that_a_person_did_it_and_leaves_the_disk_unmounted(
    world: World, config: Config, called: str
) -> None:
    stick = world.stick()
    world.script.hold(COPYING)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached(COPYING)
        assert await running.daemon.asked.cancel(called) == "STICK1"
        await running.runs(1)
        assert stick.mounted_by == ""
        (finding,) = world.report.findings
        assert (world.report.outcome, world.report.safe_to_unplug) == (Outcome.INTERRUPTED, True)
        assert finding.message == "The backup was cancelled by somebody on the server"
        assert finding.hint.startswith("The next backup completes it")
        world.script.go_on(COPYING)
        await running.daemon.asked.backup("STICK1", "")
        await running.runs(2)
    assert world.outcomes == [Outcome.INTERRUPTED, Outcome.OK]


async def test_a_disk_that_waits_is_taken_from_the_queue_and_does_not_begin_by_itself(
    world: World, config: Config
) -> None:
    first, second = world.stick(1), world.stick(2)
    world.script.hold(COPYING)
    async with daemon_on(world, config) as running:
        world.devices.plug(first)
        await running.reached(COPYING)
        world.devices.plug(second)
        await running.until(lambda: Event.DISK_QUEUED in world.log.events())
        assert await running.daemon.asked.cancel("STICK2") == "STICK2"
        world.devices.plug(second)
        world.script.go_on(COPYING)
        await running.runs(1)
        await quiet()
        assert not running.daemon.busy
        await running.daemon.asked.backup("STICK2", "")
        await running.runs(2)


async def test_there_is_nothing_to_cancel(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        assert (await refused(running.daemon.asked.cancel(""))).why is Refusal.NOT_RUNNING
        assert (await refused(running.daemon.asked.cancel("STICK1"))).why is Refusal.NO_SUCH_DISK
        await plugged(running, world.stick())
        refusal = await refused(running.daemon.asked.cancel("STICK1"))
        assert (refusal.why, "neither" in refusal.message) == (Refusal.NOT_RUNNING, True)


# Forgetting -----------------------------------------------------------------------------------------------


async def test_a_forgotten_disk_is_new_and_loses_nothing(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        await plugged(running, stick)
        manifests = world.state / "manifests"
        assert list(manifests.glob("*.db"))
        assert await running.daemon.asked.forget("STICK1") == "STICK1"
        assert not list(manifests.iterdir())
        disk = await the_disk(running)
        assert (disk.last, disk.strip, disk.state) == (None, "", DiskState.IDLE)
        world.devices.pull(stick)
        await running.until(lambda: "removed STICK1" in world.watchers.told)
        assert await running.daemon.asked.disks() == ()
        assert (await refused(running.daemon.asked.forget("STICK1"))).why is Refusal.NO_SUCH_DISK
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.outcomes == [Outcome.OK]
    assert world.copier.copied.count(b"u1/aa/bb/1.jpg") == 1, "what lies on the disk is met again"


async def test_nothing_is_forgotten_while_the_disk_is_in_use_or_waits(world: World, config: Config) -> None:
    first, second = world.stick(1), world.stick(2)
    async with daemon_on(world, config) as running:
        await plugged(running, first)
        await plugged(running, second)
        world.script.hold(COPYING)
        world.copier.copied.clear()
        await running.daemon.asked.backup("STICK1", "full")
        await running.reached(COPYING)
        await running.daemon.asked.backup("STICK2", "")
        for name in ("STICK1", "STICK2"):
            assert (await refused(running.daemon.asked.forget(name))).why is Refusal.BUSY
        world.script.go_on(COPYING)
        await running.runs(4)
    assert len(world.history.finished) == 4


# Trying again ---------------------------------------------------------------------------------------------


async def test_a_retry_copies_what_that_run_did_not_and_reads_nothing_else(
    world: World, config: Config, media: Path
) -> None:
    always = config.verification.model_copy(update={"again_after_days": 0})
    async with daemon_on(world, config.model_copy(update={"verification": always})) as running:
        await plugged(running, world.stick())
        (media / "upload/u1/aa/bb/new.jpg").write_bytes(b"new")
        world.script.hold(COPYING)
        await running.daemon.asked.backup("STICK1", "")
        await running.reached(COPYING)
        await running.daemon.asked.cancel("")
        await running.runs(2)
        world.script.go_on(COPYING)
        assert await running.daemon.asked.retry(world.report.run_id) == "STICK1"
        await running.runs(3)
        assert (world.report.outcome, world.report.mode) == (Outcome.OK, Mode.QUICK)
        assert world.copier.copied.count(b"u1/aa/bb/new.jpg") == 1
        assert Stage.PROVE not in {stage.stage for stage in world.report.stages}
        refusal = await refused(running.daemon.asked.retry(world.report.run_id))
        assert (refusal.why, "had everything" in refusal.message) == (Refusal.BAD_CHOICE, True)
        await running.daemon.asked.backup("STICK1", "")
        await running.runs(4)
        assert Stage.PROVE in {stage.stage for stage in world.report.stages}, "any other run reads in turn"


async def test_a_retry_of_a_run_that_found_damage_reads_in_turn(world: World, config: Config) -> None:
    always = config.verification.model_copy(update={"again_after_days": 0})
    async with daemon_on(world, config.model_copy(update={"verification": always})) as running:
        await plugged(running, world.stick())
        damage = Finding(code="disk-rotten", severity=Severity.PARTIAL, message="")
        run_id = world.report.run_id
        world.history.finished[run_id] = replace(world.report, outcome=Outcome.PARTIAL, findings=(damage,))
        await running.daemon.asked.retry(run_id)
        await running.runs(2)
        assert Stage.PROVE in {stage.stage for stage in world.report.stages}


async def test_a_retry_needs_its_run_and_its_disk(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.hold(COPYING)
    async with daemon_on(world, config) as running:
        assert (await refused(running.daemon.asked.retry("none"))).why is Refusal.NO_SUCH_RUN
        world.devices.plug(stick)
        await running.reached(COPYING)
        world.devices.pull(stick)
        await running.runs(1)
        assert (await refused(running.daemon.asked.retry(world.report.run_id))).why is Refusal.NO_SUCH_DISK
