"""What a person asks the daemon for: its place in the queue, whom it concerns, and how it is refused. Runs are stand-ins."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest
from tests.support.fakes import Stick, World, partition_of
from tests.support.running import Running, daemon_on, quiet
from tests.support.telling import NOON

from immich_usb_backup import worker as module
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, DiskGone, Interrupted, StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import (
    DeviceAction,
    Mode,
    Outcome,
    PartitionSeen,
    PlanReport,
    PlugIn,
    Rereading,
    RunReport,
)
from immich_usb_backup.policy.enrolment import Enrolment
from immich_usb_backup.policy.report import first_report, identify
from immich_usb_backup.ports import Manifest, Ports
from immich_usb_backup.requests import Refusal, Refused
from immich_usb_backup.run import Stop


class Permissions:
    """Implements ``ports.Manifests`` as far as a person's requests go. ``held`` counts deletions by UUID."""

    def __init__(self, world: World) -> None:
        self._script = world.script
        self.held: dict[str, int] = {}
        self.adopted: list[str] = []

    async def approve(self, uuid: str) -> int:
        """Used up by being approved."""
        await self._script.at("manifests.approve")
        return self.held.pop(uuid, 0)

    async def adopt(self, uuid: str) -> None:
        """Remember."""
        await self._script.at("manifests.adopt")
        self.adopted.append(uuid)

    async def forget(self, uuid: str) -> None:
        """Nothing is forgotten here."""
        raise NotImplementedError

    async def open(self, uuid: str) -> Manifest:
        """Runs are stand-ins here."""
        raise NotImplementedError

    async def server_id(self) -> str:
        """Runs are stand-ins here."""
        raise NotImplementedError


class NobodyEnrolled:
    """Implements ``ports.Enrolments`` without a thread: ``quiet`` waits for none."""

    async def all(self) -> tuple[Enrolment, ...]:
        """None."""
        return ()

    async def put(self, enrolment: Enrolment) -> None:
        """Nothing is enrolled here."""
        raise NotImplementedError

    async def revoke(self, uuid: str) -> bool:
        """There is none."""
        return False


class Jobs:
    """Stand-ins for a run and for a plan. ``done`` has what was done with which disk, and in which mode."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.done: list[tuple[str, str, Mode | None]] = []
        self.rereading: list[Rereading] = []

    async def back_up(
        self,
        seen: PartitionSeen,
        *,
        config: Config,
        ports: Ports,
        stop: Stop,
        mode: Mode | None = None,
        rereading: Rereading = Rereading.TURN,
        **others: object,
    ) -> RunReport | None:
        """Begin, be recorded, end; cancelled, end all the same."""
        stick = next(stick for stick in self._world.devices.plugged.values() if stick.seen.uuid == seen.uuid)
        name = await ports.history.disk_name(seen.uuid)
        run_id = f"run-{len(self._world.history.begun)}"
        report = first_report(run_id, "nas", identify(seen, partition_of(stick), name), NOON)
        await ports.history.begin(report, seen.plug_in)
        outcome = Outcome.OK
        try:
            await self._world.script.at(f"back up {seen.label}")
        except asyncio.CancelledError:
            outcome = Outcome.INTERRUPTED
        self.done.append(("backup", seen.label, mode))
        self.rereading.append(rereading)
        report = replace(report, outcome=outcome)
        await ports.history.finish(report)
        ports.watchers.finished(report)
        return report

    async def dry_run(
        self, seen: PartitionSeen, *, config: Config, ports: Ports, mode: Mode | None, stop: Stop
    ) -> PlanReport:
        """A plan in which there is nothing to do."""
        await self._world.script.at(f"plan {seen.label}")
        self.done.append(("plan", seen.label, mode))
        stick = self._world.devices.plugged[seen.plug_in]
        disk = identify(seen, partition_of(stick), None)
        return PlanReport(disk=disk, mode=mode or Mode.QUICK, categories=(), findings=())


@pytest.fixture(autouse=True)
def permissions(world: World) -> Permissions:
    permissions = Permissions(world)
    world.ports = replace(world.ports, manifests=permissions, enrolments=NobodyEnrolled())
    return permissions


@pytest.fixture(autouse=True)
def jobs(world: World, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    jobs = Jobs(world)
    monkeypatch.setattr(module, "back_up", jobs.back_up)
    monkeypatch.setattr(module, "dry_run", jobs.dry_run)
    return jobs


async def plugged(running: Running, *sticks: Stick) -> None:
    """Plug them in; each has its run."""
    before = len(running.world.watchers.reports)
    for stick in sticks:
        running.world.devices.plug(stick)
    await running.runs(before + len(sticks))


async def refused(call: Coroutine[Any, Any, Any]) -> Refused:
    with pytest.raises(Refused) as refusal:
        await call
    return refusal.value


# Plans ----------------------------------------------------------------------------------------------------


async def test_a_plan_is_answered_and_is_no_run(world: World, config: Config, jobs: Jobs) -> None:
    async with daemon_on(world, config, runs_at_most=2) as running:
        await plugged(running, world.stick())
        report = await running.daemon.asked.plan("STICK1", "verify")
        assert (report.disk.label, report.mode) == ("STICK1", Mode.VERIFY)
        assert (await running.daemon.asked.plan("STICK1", "")).mode is Mode.QUICK
        await quiet()
        assert not running.task.done(), "plans do not count as backups"
    assert jobs.done == [
        ("backup", "STICK1", None),
        ("plan", "STICK1", Mode.VERIFY),
        ("plan", "STICK1", None),
    ]


async def test_a_plan_waits_for_its_turn(world: World, config: Config, jobs: Jobs) -> None:
    first, second = world.stick(1), world.stick(2)
    async with daemon_on(world, config) as running:
        await plugged(running, first, second)
        world.script.hold("back up STICK1")
        await running.daemon.asked.backup("STICK1", "")
        await running.reached("back up STICK1")
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK2", ""))
        await quiet()
        assert "plan STICK2" not in world.script.steps
        await running.daemon.asked.backup("STICK2", "full")
        world.script.go_on("back up STICK1")
        await plan
        await running.runs(4)
    assert jobs.done[2:] == [
        ("backup", "STICK1", None),
        ("plan", "STICK2", None),
        ("backup", "STICK2", Mode.FULL),
    ]


async def test_a_backup_that_is_asked_for_follows_a_plan_of_the_same_disk(
    world: World, config: Config, jobs: Jobs
) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        world.script.hold("plan STICK1")
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK1", ""))
        await running.reached("plan STICK1")
        assert await running.daemon.asked.backup("STICK1", "full") == "STICK1"
        world.script.go_on("plan STICK1")
        await plan
        await running.runs(2)
    assert jobs.done[-2:] == [("plan", "STICK1", None), ("backup", "STICK1", Mode.FULL)]


@pytest.mark.parametrize("how", ["waits", "runs"])
async def test_a_disk_that_is_pulled_ends_its_plan_with_that_error(
    world: World, config: Config, jobs: Jobs, how: str
) -> None:
    first, second = world.stick(1), world.stick(2)
    async with daemon_on(world, config) as running:
        await plugged(running, first, second)
        held = "back up STICK1" if how == "waits" else "plan STICK2"
        world.script.hold(held)
        if how == "waits":
            await running.daemon.asked.backup("STICK1", "")
            await running.reached(held)
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK2", ""))
        if how == "runs":
            await running.reached(held)
        await quiet()
        world.devices.pull(second)
        with pytest.raises(DiskGone, match="/dev/sdc1 was unplugged before"):
            await plan
        world.script.go_on(held)
        assert await running.daemon.asked.backup("STICK1", "") if how == "runs" else True
        await running.runs(3)
    assert ("plan", "STICK2", None) not in jobs.done


@pytest.mark.parametrize("how", ["waits", "runs"])
async def test_a_stop_ends_a_plan_with_that_error(world: World, config: Config, jobs: Jobs, how: str) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick(1), world.stick(2))
        held = "back up STICK1" if how == "waits" else "plan STICK2"
        world.script.hold(held)
        if how == "waits":
            await running.daemon.asked.backup("STICK1", "")
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK2", ""))
        await running.reached(held)
        running.daemon.stop()
        with pytest.raises(Interrupted, match="the backup service was stopped"):
            await plan
        late = await refused(running.daemon.asked.plan("STICK2", ""))
        assert "being stopped" in late.message
    assert ("plan", "STICK2", None) not in jobs.done


async def test_what_goes_wrong_in_a_plan_is_its_answer(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        world.script.fail("plan STICK1", BackupError("it is damaged"), OSError(5, "Input/output error"))
        with pytest.raises(BackupError, match="it is damaged"):
            await running.daemon.asked.plan("STICK1", "")
        with pytest.raises(BackupError, match="The disk answered: Input/output error"):
            await running.daemon.asked.plan("STICK1", "")


async def test_a_pulled_disk_that_answers_with_errors_was_pulled(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dry_run(seen: PartitionSeen, **others: Any) -> PlanReport:
        try:
            await world.script.at("plan")
        except asyncio.CancelledError:
            raise OSError(5, "Input/output error") from None
        raise NotImplementedError

    monkeypatch.setattr(module, "dry_run", dry_run)
    stick = world.stick()
    async with daemon_on(world, config) as running:
        await plugged(running, stick)
        world.script.hold("plan")
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK1", ""))
        await running.reached("plan")
        world.devices.pull(stick)
        with pytest.raises(DiskGone):
            await plan


async def test_after_a_plan_the_disk_is_still_one_that_had_its_run(world: World, config: Config, jobs: Jobs) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        await plugged(running, stick)
        await running.daemon.asked.plan("STICK1", "")
        world.devices.say(stick, DeviceAction.CHANGE)
        await quiet()
        world.devices.pull(stick)
        await running.until(lambda: "removed STICK1" in world.watchers.told)
    assert [kind for kind, _, _ in jobs.done] == ["backup", "plan"]


async def test_a_bug_in_a_plan_is_told_and_does_not_end_the_service(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        world.script.fail("plan STICK1", ValueError("a bug"))
        refusal = await refused(running.daemon.asked.plan("STICK1", ""))
        assert (refusal.why, "journalctl" in refusal.hint) == (Refusal.FAILED, True)
        assert Event.BUG in world.log.events()
        await plugged(running, world.stick(2))


async def test_a_plan_that_nobody_waits_for_any_more_is_not_made(world: World, config: Config, jobs: Jobs) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick(1), world.stick(2))
        world.script.hold("back up STICK1")
        await running.daemon.asked.backup("STICK1", "")
        await running.reached("back up STICK1")
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK2", ""))
        await quiet()
        plan.cancel()
        await quiet()
        world.script.go_on("back up STICK1")
        await running.runs(3)
        await quiet()
    assert "plan STICK2" not in world.script.steps


async def test_a_plan_that_nobody_waits_for_any_more_is_stopped(world: World, config: Config, jobs: Jobs) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick(1), world.stick(2))
        world.script.hold("plan STICK2")
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK2", ""))
        await running.reached("plan STICK2")
        plan.cancel()
        await quiet()
        assert not running.daemon.busy
        assert (await running.daemon.asked.plan("STICK1", "")).disk.label == "STICK1"
    assert jobs.done[2:] == [("plan", "STICK1", None)]


async def test_a_plan_keeps_its_drive_from_being_switched_off(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`Stop.drive_wanted` is what a run asks before it switches the drive off."""
    wanted: list[bool] = []

    async def back_up(seen: PartitionSeen, *, stop: Stop, **others: Any) -> RunReport | None:
        await world.script.at("back up")
        wanted.append(stop.drive_wanted())
        return None

    monkeypatch.setattr(module, "back_up", back_up)
    world.script.hold("back up")
    stick = world.stick()
    other = world.stick(2)
    other.seen = replace(other.seen, plug_in=replace(other.seen.plug_in, disk_sequence=1))
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached("back up")
        world.devices.plugged[other.seen.plug_in] = other
        world.history.plug_ins.add(other.seen.plug_in)
        world.devices.say(other, DeviceAction.ADD)
        await quiet()
        plan = asyncio.ensure_future(running.daemon.asked.plan("STICK2", ""))
        await quiet()
        world.script.go_on("back up")
        await plan
    assert wanted == [True]


# Backups --------------------------------------------------------------------------------------------------


async def test_a_backup_runs_again_when_a_person_asks_for_it(world: World, config: Config, jobs: Jobs) -> None:
    async with daemon_on(world, config) as running:
        stick = world.stick()
        await plugged(running, stick)
        assert await running.daemon.asked.backup("STICK1", "verify") == "STICK1"
        await running.runs(2)
        world.devices.say(stick, DeviceAction.CHANGE)
        await quiet()
    assert jobs.done == [("backup", "STICK1", None), ("backup", "STICK1", Mode.VERIFY)]


async def test_a_backup_of_a_disk_that_is_being_backed_up_is_refused(world: World, config: Config, jobs: Jobs) -> None:
    world.script.hold("back up STICK1")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.reached("back up STICK1")
        for call in (running.daemon.asked.backup("STICK1", ""), running.daemon.asked.plan("STICK1", "")):
            refusal = await refused(call)
            assert (refusal.why, refusal.message) == (Refusal.BUSY, "'STICK1' is being backed up now")
        world.script.go_on("back up STICK1")
        await running.runs(1)
        await quiet()
    assert len(jobs.done) == 1


async def test_a_backup_that_waits_is_asked_for_in_vain_but_for_its_mode(
    world: World, config: Config, jobs: Jobs
) -> None:
    world.script.hold("back up STICK1")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick(1))
        await running.reached("back up STICK1")
        world.devices.plug(world.stick(2))
        await running.until(lambda: Event.DISK_QUEUED in world.log.events())
        await running.daemon.asked.backup("STICK2", "full")
        await running.daemon.asked.backup("STICK2", "")
        world.script.go_on("back up STICK1")
        await running.runs(2)
        await quiet()
    assert jobs.done == [("backup", "STICK1", None), ("backup", "STICK2", Mode.FULL)]


async def test_a_verification_of_a_disk_that_waits_is_its_one_run(world: World, config: Config, jobs: Jobs) -> None:
    world.script.hold("back up STICK1")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick(1))
        await running.reached("back up STICK1")
        world.devices.plug(world.stick(2))
        await running.until(lambda: Event.DISK_QUEUED in world.log.events())
        assert (await running.daemon.asked.verify("STICK2", "all")).uuid == "ABCD-0002"
        await running.daemon.asked.backup("STICK2", "full")
        world.script.go_on("back up STICK1")
        await running.runs(2)
        await quiet()
    assert jobs.done[1:] == [("backup", "STICK2", Mode.FULL)]
    assert jobs.rereading == [Rereading.TURN, Rereading.ALL]


async def test_a_request_and_the_plug_in_itself_are_one_run(
    world: World, config: Config, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person is quicker than the answer of the history, which does not know of the run yet."""

    async def handled(plug_in: PlugIn) -> bool:
        await world.script.at("slow history")
        return False

    monkeypatch.setattr(world.history, "handled", handled)
    world.script.hold("slow history")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.reached("slow history")
        world.script.hold("back up STICK1")
        await running.daemon.asked.backup("STICK1", "full")
        await running.reached("back up STICK1")
        world.script.go_on("slow history")
        await quiet()
        world.script.go_on("back up STICK1")
        await running.runs(1)
        await quiet()
    assert jobs.done == [("backup", "STICK1", Mode.FULL)]


async def test_an_unknown_mode_is_refused(world: World, config: Config, jobs: Jobs) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        for call in (running.daemon.asked.backup("STICK1", "fast"), running.daemon.asked.plan("STICK1", "\x1b[2J")):
            refusal = await refused(call)
            assert refusal.why is Refusal.BAD_MODE
            assert "quick, verify, full" in refusal.message
            assert "\x1b" not in refusal.message
    assert len(jobs.done) == 1


# Which disk -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", ["Blue", "STICK1", "ABCD-0001", "abcd-0001", "/dev/sdb1"])
async def test_a_disk_goes_by_name_label_uuid_and_device_node(
    world: World, config: Config, jobs: Jobs, wanted: str
) -> None:
    stick = world.stick()
    blue = replace(identify(stick.seen, partition_of(stick), "Blue"))
    await world.history.begin(first_report("run-x", "nas", blue, NOON), stick.seen.plug_in)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: "history.handled" in world.script.steps)
        assert await running.daemon.asked.backup(wanted, "") == "Blue"
        await running.runs(1)
    assert len(jobs.done) == 1


async def test_a_disk_that_is_not_here_is_refused_and_those_that_are_here_are_named(
    world: World, config: Config
) -> None:
    stick = world.stick(1)
    async with daemon_on(world, config) as running:
        nothing = await refused(running.daemon.asked.backup("Blue", ""))
        assert nothing.message == "No disk 'Blue' is plugged in. No exFAT disk is plugged in"
        await plugged(running, stick)
        for wanted in ("Blue", "", "/dev/sdz1", "STICK"):
            refusal = await refused(running.daemon.asked.plan(wanted, ""))
            assert refusal.why is Refusal.NO_SUCH_DISK
            assert "Plugged in: 'STICK1' (/dev/sdb1, UUID ABCD-0001)" in refusal.message
        world.devices.pull(stick, tell=False)
        assert (await refused(running.daemon.asked.backup("STICK1", ""))).why is Refusal.NO_SUCH_DISK


async def test_no_name_is_not_the_name_of_a_disk_without_a_label(world: World, config: Config) -> None:
    stick = world.stick()
    stick.seen = replace(stick.seen, label="")
    async with daemon_on(world, config) as running:
        await plugged(running, stick)
        assert (await refused(running.daemon.asked.backup("", ""))).why is Refusal.NO_SUCH_DISK
        assert await running.daemon.asked.backup("ABCD-0001", "") == "ABCD-0001"
        await running.runs(2)


async def test_two_disks_of_one_name_are_told_apart_by_their_device_nodes(
    world: World, config: Config, jobs: Jobs
) -> None:
    first, second = world.stick(1, label="BACKUP"), world.stick(2, label="BACKUP")
    async with daemon_on(world, config) as running:
        await plugged(running, first, second)
        world.history.finished.popitem()  # that one of them alone is known from before settles nothing
        for ask in (running.daemon.asked.approve, running.daemon.asked.adopt):
            assert (await refused(ask("BACKUP"))).why is Refusal.AMBIGUOUS_DISK
        refusal = await refused(running.daemon.asked.backup("BACKUP", ""))
        assert refusal.why is Refusal.AMBIGUOUS_DISK
        assert "/dev/sdb1" in refusal.message
        assert "/dev/sdc1" in refusal.message
        assert "device node" in refusal.hint
        await running.daemon.asked.backup("/dev/sdc1", "")
        await running.runs(3)
    assert [report.disk.uuid for report in world.watchers.reports][-1] == second.seen.uuid


async def test_a_label_that_looks_like_a_device_node_means_nothing(world: World, config: Config, jobs: Jobs) -> None:
    liar, honest = world.stick(1, label="/dev/sdc1"), world.stick(2)
    async with daemon_on(world, config) as running:
        await plugged(running, liar, honest)
        assert await running.daemon.asked.backup("/dev/sdc1", "") == "STICK2"
        await running.runs(3)


async def test_hostile_labels_are_harmless_in_a_refusal(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick(1, label="a\x1b[31mb\u202e"))
        refusal = await refused(running.daemon.asked.backup("\x1b]0;x\x07", ""))
    assert refusal.message.isprintable()


async def test_what_is_here_and_not_eligible_is_refused_with_the_reasons(world: World, config: Config) -> None:
    stick = world.stick()
    stick.seen = replace(stick.seen, transport="mmc")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.until(lambda: Event.DISK_IGNORED in world.log.events())
        refusal = await refused(running.daemon.asked.backup("STICK1", ""))
        assert refusal.why is Refusal.NO_SUCH_DISK
        assert "it is connected by mmc, allowed is usb" in refusal.message
        disks = config.disks.model_copy(update={"transports": ("usb", "mmc")})
        running.new_config = config.model_copy(update={"disks": disks})
        running.daemon.reload()
        assert await running.daemon.asked.backup("STICK1", "") == "STICK1"
        await running.runs(1)


async def test_a_damaged_history_leaves_the_labels(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        world.script.fail("history.disk_name", StateDamaged("cannot be read"))
        assert await running.daemon.asked.backup("STICK1", "") == "STICK1"
        await running.runs(2)


# Approving, adopting --------------------------------------------------------------------------------------


async def test_what_is_approved_is_done_at_once_where_the_disk_is_here(
    world: World, config: Config, jobs: Jobs, permissions: Permissions
) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        permissions.held["ABCD-0001"] = 412
        assert await running.daemon.asked.approve("STICK1") == 412
        await running.runs(2)
        assert await running.daemon.asked.approve("STICK1") == 0
        await quiet()
    assert jobs.done == [("backup", "STICK1", None)] * 2, "nothing was held: no third run"


async def test_a_disk_that_is_adopted_is_backed_up_to_at_once(
    world: World, config: Config, jobs: Jobs, permissions: Permissions
) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        assert await running.daemon.asked.adopt("/dev/sdb1") == "STICK1"
        await running.runs(2)
    assert permissions.adopted == ["ABCD-0001"]


@pytest.mark.parametrize("wanted", ["STICK1", "ABCD-0001"])
async def test_a_disk_that_is_elsewhere_is_known_from_its_runs(
    world: World, config: Config, jobs: Jobs, permissions: Permissions, wanted: str
) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        await plugged(running, stick)
        world.devices.pull(stick)
        await quiet()
        permissions.held["ABCD-0001"] = 3
        assert await running.daemon.asked.approve(wanted) == 3
        assert await running.daemon.asked.adopt(wanted) == "STICK1"
        assert (await refused(running.daemon.asked.approve("Green"))).why is Refusal.NO_SUCH_DISK
        await quiet()
    assert len(jobs.done) == 1


async def test_a_disk_that_is_elsewhere_goes_by_its_newest_name(world: World, config: Config) -> None:
    stick = world.stick()
    for name in ("Blue", "Green"):
        report = first_report(name, "nas", identify(stick.seen, partition_of(stick), name), NOON)
        report = replace(report, disk=replace(report.disk, label=""))
        await world.history.begin(report, stick.seen.plug_in)
        await world.history.finish(report)
    async with daemon_on(world, config) as running:
        assert await running.daemon.asked.adopt("Green") == "Green"
        assert (await refused(running.daemon.asked.adopt("Blue"))).why is Refusal.NO_SUCH_DISK


async def test_the_disk_that_is_here_is_meant_and_not_an_old_one_of_its_name(
    world: World, config: Config, permissions: Permissions
) -> None:
    old, new = world.stick(1, label="BACKUP"), world.stick(2, label="BACKUP")
    async with daemon_on(world, config) as running:
        await plugged(running, old)
        world.devices.pull(old)
        await plugged(running, new)
        await running.daemon.asked.adopt("BACKUP")
        assert permissions.adopted == ["ABCD-0002"]
        await running.runs(3)
        world.devices.pull(new)
        await quiet()
        refusal = await refused(running.daemon.asked.adopt("BACKUP"))
    assert refusal.why is Refusal.AMBIGUOUS_DISK
    assert "Give the UUID" in refusal.hint


async def test_nothing_is_approved_while_the_disk_is_in_use(
    world: World, config: Config, permissions: Permissions
) -> None:
    permissions.held = {"ABCD-0001": 1, "ABCD-0002": 2}
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick(1), world.stick(2))
        world.script.hold("back up STICK1")
        await running.daemon.asked.backup("STICK1", "")
        await running.reached("back up STICK1")
        for ask in (running.daemon.asked.approve, running.daemon.asked.adopt):
            assert (await refused(ask("STICK1"))).why is Refusal.BUSY
        assert await running.daemon.asked.approve("STICK2") == 2, "another disk's run is not in the way"
        world.script.go_on("back up STICK1")
        await running.runs(4)
    assert permissions.held == {"ABCD-0001": 1}


async def test_a_run_begins_when_the_approval_is_written_down(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        world.script.hold("manifests.approve")
        approval = asyncio.ensure_future(running.daemon.asked.approve("STICK1"))
        await running.reached("manifests.approve")
        await running.daemon.asked.backup("STICK1", "")
        await quiet()
        assert world.script.steps.count("back up STICK1") == 1
        world.script.go_on("manifests.approve")
        await approval
        await running.runs(2)


async def test_an_approval_that_cannot_be_written_down_is_an_error(world: World, config: Config) -> None:
    async with daemon_on(world, config) as running:
        await plugged(running, world.stick())
        world.script.fail("manifests.approve", StateDamaged("no room left"))
        with pytest.raises(StateDamaged):
            await running.daemon.asked.approve("STICK1")
        await plugged(running, world.stick(2))
