"""One run: whatever fails, the disk is let go, the outcome is true, and it is told. On fakes, in the real loop."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fakes import Stick, World
from tests.support.running import Running, daemon_on, quiet
from tests.unit.conftest import DUMP_NAME

from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.config import Config
from immich_usb_backup.errors import (
    BackupError,
    BusLost,
    DeadlineMissed,
    DiskFull,
    DiskGone,
    FlushFailed,
    MountFailed,
    StateDamaged,
    UnmountBusy,
)
from immich_usb_backup.events import Event
from immich_usb_backup.messages import headline
from immich_usb_backup.model import Outcome, RunReport, Severity
from immich_usb_backup.ports import Sink

IN_EVERY_STAGE = (
    *(
        "targets.open",
        "target.clear_temporary",
        "target.write database",
        "target.write .",
        "target.fingerprint",
        "target.write config",
    ),
    *("copier.copy upload", "copier.copy library", "copier.copy profile", "target.facts", "target.write .in-flight"),
)
SAFE = "safe to unplug"


async def _run(world: World, config: Config, stick: Stick | None = None) -> RunReport:
    """The report of one whole run."""
    async with daemon_on(world, config) as running:
        world.devices.plug(stick or world.stick())
        await running.runs(1)
    return world.report


def _let_go(world: World, stick: Stick) -> bool:
    """Nothing holds the disk: not mounted, no folder open, the machine may sleep."""
    return (stick.mounted_by, world.targets.opened, world.inhibitor.held_now) == ("", 0, False)


async def test_a_good_run_has_everything_on_the_disk_and_says_so_last(world: World, config: Config) -> None:
    stick = world.stick()
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.OK
    assert [finding.code for finding in report.findings] == ["any-marked-disk"]
    assert headline(report) == f"'STICK1' is backed up: {SAFE}"
    found = {str(path.relative_to(stick.backups)) for path in stick.backups.rglob("*") if path.is_file()}
    photos = {"upload/u1/aa/bb/1.jpg", "library/admin/2026/2.jpg", "profile/u1/me.jpg"}
    assert photos | {f"database/{DUMP_NAME}", "upload/.immich"} <= found
    assert (stick.root / "holiday.odt").read_bytes() == b"mine"
    steps = world.script.steps
    ends = [
        *("target.flush", "target.sha1s", "target.flush", "target.flush"),
        "disks.unmount",
        "history.finish",
        "outbox.put",
        "history.announced",
        "watchers.finished",
    ]
    assert [step for step in steps[steps.index("target.flush") :] if step in ends] == ends
    assert _let_go(world, stick)


# Cut short ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", IN_EVERY_STAGE)
async def test_a_stop_in_any_stage_unmounts_and_records_it(world: World, config: Config, step: str) -> None:
    stick = world.stick()
    world.script.hold(step)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached(step)
        running.daemon.stop()
    assert world.outcomes == [Outcome.INTERRUPTED]
    assert "service was stopped" in world.report.findings[0].message
    assert world.report.safe_to_unplug
    assert _let_go(world, stick)
    assert set(world.outbox.reports) == set(world.history.told) == set(world.history.begun)


@pytest.mark.parametrize("step", IN_EVERY_STAGE)
async def test_a_pulled_disk_in_any_stage_is_an_interrupted_run(world: World, config: Config, step: str) -> None:
    stick = world.stick()
    world.script.hold(step)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached(step)
        unmounts = world.script.steps.count("disks.unmount")
        world.devices.pull(stick)
        await running.runs(1)
        assert world.script.steps.count("disks.unmount") > unmounts
        world.script.go_on(step)
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.outcomes == [Outcome.INTERRUPTED, Outcome.OK]
    first = world.watchers.reports[0]
    assert [finding.code for finding in first.findings if finding.severity is Severity.INTERRUPTED] == ["disk-gone"]
    assert not first.safe_to_unplug
    assert headline(first).endswith("it was unplugged too early")
    assert world.targets.opened == 0


async def _stop(running: Running, stick: Stick) -> None:
    running.daemon.stop()
    await quiet()


async def _pull(running: Running, stick: Stick) -> None:
    running.world.devices.pull(stick)
    await quiet()


@pytest.mark.parametrize("act", [_stop, _pull])
@pytest.mark.parametrize("step", ["history.begin", "disks.mount rw"])
async def test_what_comes_at_the_very_beginning_is_recorded_too(
    world: World, config: Config, step: str, act: Callable[[Running, Stick], Awaitable[None]]
) -> None:
    """UDisks2 goes on mounting when nobody waits for its answer any more."""
    stick = world.stick()
    world.script.hold(step)
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.reached(step)
        await act(running, stick)
        world.script.go_on(step)
    assert world.outcomes == [Outcome.INTERRUPTED]
    assert world.watchers.told[-1].startswith("finished")
    assert world.report.safe_to_unplug is (act is _stop)
    assert _let_go(world, stick)


@pytest.mark.parametrize("step", ["target.flush", "disks.unmount"])
async def test_a_stop_waits_for_the_flush_and_the_unmount(world: World, config: Config, step: str) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.script.do_at("copier.copy profile", lambda: world.script.hold(step))
        world.devices.plug(stick)
        await running.until(lambda: "copier.copy profile" in world.script.steps)
        await running.reached(step)
        running.daemon.stop()
        await quiet()
        assert not running.task.done()
        world.script.go_on(step)
    assert world.outcomes == [Outcome.INTERRUPTED]
    assert world.report.safe_to_unplug
    assert _let_go(world, stick)


@pytest.mark.parametrize("step", ["history.finish", "outbox.put", "history.announced"])
async def test_a_stop_while_the_outcome_is_written_down_does_not_lose_it(
    world: World, config: Config, step: str
) -> None:
    world.script.hold(step)
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.reached(step)
        running.daemon.stop()
        await quiet()
        assert not running.task.done()
        world.script.go_on(step)
    assert world.outcomes == [Outcome.OK]
    assert set(world.outbox.reports) == set(world.history.told) == set(world.history.begun)


# Success is never said too early --------------------------------------------------------------------------


def _fail_flush(world: World, stick: Stick) -> None:
    world.script.fail("target.flush", FlushFailed("data was lost"))


def _fail_flush_and_vanish(world: World, stick: Stick) -> None:
    _fail_flush(world, stick)
    world.script.do_at("devices.gone", lambda: world.devices.pull(stick, tell=False))


def _fail_flush_slowly(world: World, stick: Stick) -> None:
    world.script.fail("target.flush", DeadlineMissed("the disk does not get on"))


def _break_flush(world: World, stick: Stick) -> None:
    world.script.fail("target.flush", RuntimeError("a bug"))


def _keep_busy(world: World, stick: Stick) -> None:
    world.script.do_at("target.flush", lambda: stick.holders.append("clamscan (7)"))


def _fail_unmount(world: World, stick: Stick) -> None:
    refused = DeadlineMissed("UDisks2 did not answer")
    world.script.do_at("target.flush", lambda: world.script.fail_always("disks.unmount", refused))


def _pull_before_flush(world: World, stick: Stick) -> None:
    world.script.do_at("target.flush", lambda: world.devices.pull(stick))


def _pull_silently_before_flush(world: World, stick: Stick) -> None:
    world.script.do_at("target.flush", lambda: world.devices.pull(stick, tell=False))


def _pull_after_flush(world: World, stick: Stick) -> None:
    def hook() -> None:
        if "target.flush" in world.script.steps:
            world.devices.pull(stick)

    world.script.do_at("disks.unmount", hook)


@pytest.mark.parametrize(
    ("misfortune", "outcome", "safe"),
    [
        (_fail_flush, Outcome.FAILED, True),
        (_fail_flush_and_vanish, Outcome.INTERRUPTED, False),
        (_fail_flush_slowly, Outcome.FAILED, True),
        (_break_flush, Outcome.FAILED, True),
        (_keep_busy, Outcome.PARTIAL, False),
        (_fail_unmount, Outcome.FAILED, False),
        (_pull_before_flush, Outcome.INTERRUPTED, False),
        (_pull_silently_before_flush, Outcome.INTERRUPTED, False),
        (_pull_after_flush, Outcome.INTERRUPTED, False),
    ],
)
async def test_success_is_never_said_before_flush_and_unmount_succeeded(
    world: World, config: Config, misfortune: Callable[[World, Stick], None], outcome: Outcome, safe: bool
) -> None:
    stick = world.stick()
    misfortune(world, stick)
    report = await _run(world, config, stick)
    assert (report.outcome, report.safe_to_unplug) == (outcome, safe)
    assert (SAFE in headline(report)) is safe
    assert Event.RUN_OK not in world.log.events()
    assert report.findings[0].message
    assert (stick.mounted_by == "") is (safe or stick.seen.plug_in not in world.devices.plugged)
    assert not world.inhibitor.held_now


async def test_a_busy_disk_is_asked_again_and_then_named(world: World, config: Config) -> None:
    stick = world.stick()
    _keep_busy(world, stick)
    report = await _run(world, config, stick)
    assert world.script.steps.count("disks.unmount") > 2
    assert "clamscan (7)" in report.findings[0].message


async def test_a_disk_that_is_busy_for_a_moment_is_unmounted(world: World, config: Config) -> None:
    stick = world.stick()
    busy = UnmountBusy("in use")
    flushes = iter([False, False, True])
    world.script.do_at("target.flush", lambda: next(flushes) and world.script.fail("disks.unmount", busy))  # type: ignore[func-returns-value]
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.OK
    assert _let_go(world, stick)


# Power off ------------------------------------------------------------------------------------------------


def _with_power_off(config: Config) -> Config:
    return config.model_copy(update={"disks": config.disks.model_copy(update={"power_off": True})})


async def test_a_disk_that_vanishes_because_it_is_switched_off_was_not_unplugged_too_early(
    world: World, config: Config
) -> None:
    report = await _run(world, _with_power_off(config))
    assert report.outcome is Outcome.OK
    assert report.powered_off
    assert headline(report).endswith(SAFE)


async def test_a_disk_that_cannot_be_switched_off_is_backed_up_all_the_same(world: World, config: Config) -> None:
    stick = world.stick()
    stick.connection_bus = ""
    world.script.fail("disks.power_off", MountFailed("in use by another partition"))
    report = await _run(world, _with_power_off(config), stick)
    assert report.outcome is Outcome.OK
    assert [finding.code for finding in report.findings] == ["power-off-failed", "any-marked-disk"]
    assert report.safe_to_unplug
    assert not report.powered_off


async def test_a_disk_that_is_still_mounted_is_not_switched_off(world: World, config: Config) -> None:
    stick = world.stick()
    _keep_busy(world, stick)
    await _run(world, _with_power_off(config), stick)
    assert "disks.power_off" not in world.script.steps


async def test_a_disk_that_is_pulled_right_after_the_unmount_is_backed_up(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.do_at("history.finish", lambda: world.devices.pull(stick))
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.OK


# What fails beside the disk -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["history.finish", "outbox.put", "history.announced"])
@pytest.mark.parametrize("error", [StateDamaged("cannot be written"), OSError(28, "No space left on device")])
async def test_a_record_that_fails_does_not_change_the_outcome(
    world: World, config: Config, step: str, error: Exception
) -> None:
    world.script.fail(step, error)
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.runs(1)
    assert world.watchers.reports[0].outcome is Outcome.OK
    assert world.log.events().count(Event.ANNOUNCE_FAILED) == 1
    assert Event.RUN_OK in world.log.events()


async def test_a_history_that_cannot_be_written_does_not_keep_the_photos_from_the_disk(
    world: World, config: Config
) -> None:
    stick = world.stick()
    world.script.fail("history.begin", StateDamaged("the state folder is full"))
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
    report = world.watchers.reports[0]
    assert report.outcome is Outcome.PARTIAL
    assert report.findings[0].message == "the state folder is full"
    assert (stick.backups / "upload/u1/aa/bb/1.jpg").exists()
    assert _let_go(world, stick)


@pytest.mark.parametrize("step", ["watchers.started", "watchers.progress", "watchers.finished"])
async def test_a_watcher_that_fails_is_logged_and_changes_nothing(world: World, config: Config, step: str) -> None:
    stick = world.stick()
    world.script.fail_always(step, BrokenPipeError("the terminal is closed"))
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.OK
    assert Event.WATCHER_FAILED in world.log.events()
    assert _let_go(world, stick)


@pytest.mark.parametrize("step", IN_EVERY_STAGE)
async def test_a_bug_in_any_stage_ends_in_an_unmounted_disk_and_a_message(
    world: World, config: Config, step: str
) -> None:
    stick, other = world.stick(1), world.stick(2)
    world.script.fail(step, KeyError("a bug"))
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        assert _let_go(world, stick)
        world.devices.plug(other)
        await running.runs(2)
    assert world.outcomes == [Outcome.FAILED, Outcome.OK]
    assert world.watchers.reports[0].findings[-1].code == "bug"
    assert Event.BUG in world.log.events()


@pytest.mark.parametrize("step", IN_EVERY_STAGE)
async def test_an_error_of_the_disk_in_any_stage_fails_the_run_without_calling_it_a_bug(
    world: World, config: Config, step: str
) -> None:
    stick = world.stick()
    world.script.fail(step, OSError(20, "Not a directory"))
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.FAILED
    assert "Not a directory" in report.findings[-1].message
    assert Event.BUG not in world.log.events()
    assert _let_go(world, stick)


@pytest.mark.parametrize("error", [DiskFull("the disk is full"), DiskGone("it is gone")])
async def test_the_first_error_says_why(world: World, config: Config, error: BackupError) -> None:
    world.script.fail("copier.copy library", error)
    report = await _run(world, config)
    assert [finding.message for finding in report.findings] == [error.message]
    assert report.outcome is not Outcome.OK


# Desktops -------------------------------------------------------------------------------------------------


async def test_a_desktops_mount_of_a_marked_disk_is_taken_over(world: World, config: Config) -> None:
    stick = world.stick()
    stick.mounted_by = "desktop"
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.OK
    assert _let_go(world, stick)


async def test_a_desktops_mount_that_is_busy_and_not_writable_fails_with_what_to_do(
    world: World, config: Config
) -> None:
    stick = world.stick()
    stick.mounted_by = "desktop"
    stick.holders.append("nautilus (9)")
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.FAILED
    assert "nautilus (9)" in report.findings[0].message
    assert "A desktop has mounted the disk" in report.findings[0].message
    assert len(report.findings) == 1
    assert not report.safe_to_unplug
    assert stick.mounted_by == "desktop"
    assert "targets.open" not in world.script.steps


async def test_a_desktops_mount_that_is_busy_and_writable_is_used(world: World, config: Config) -> None:
    stick = world.stick()
    stick.mounted_by, stick.desktop_lets_us_write = "desktop", True
    stick.holders.append("nautilus (9)")
    report = await _run(world, config, stick)
    assert (stick.backups / "upload/u1/aa/bb/1.jpg").exists()
    assert report.outcome is Outcome.PARTIAL
    assert not report.safe_to_unplug
    assert "nautilus (9)" in report.findings[0].message


async def test_a_write_protected_disk_is_not_mounted_for_writing(world: World, config: Config) -> None:
    stick = world.stick()
    stick.write_protected = True
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.FAILED
    assert report.findings[0].code == "disk-read-only"
    assert "disks.mount rw" not in world.script.steps
    assert report.safe_to_unplug


async def test_a_mount_that_fails_is_a_failed_run_and_the_disk_may_go(world: World, config: Config) -> None:
    world.script.fail("disks.mount rw", MountFailed("the file system is damaged"))
    report = await _run(world, config)
    assert report.outcome is Outcome.FAILED
    assert report.findings[0].message == "the file system is damaged"
    assert report.safe_to_unplug


# What is on the disk and in the library -------------------------------------------------------------------


async def test_a_marker_file_with_the_folders_own_name_is_not_lost(world: World, config: Config) -> None:
    stick = world.stick(marked=False)
    (stick.root / "immich-server-backups").write_bytes(b'name = "Blue"')
    report = await _run(world, config, stick)
    assert report.disk.name == "Blue"
    assert (stick.backups / "marker.toml").read_bytes() == b'name = "Blue"'


async def test_without_a_good_dump_the_photos_still_go(world: World, config: Config, media: Path) -> None:
    stick = world.stick()
    (media / "backups" / DUMP_NAME).write_bytes(b"\x1f\x8b broken")
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.PARTIAL
    assert report.findings[0].code == "no-good-dump"
    assert report.findings[0].count == 1
    assert (stick.backups / "library/admin/2026/2.jpg").exists()


async def test_a_newer_bad_dump_is_named_and_the_older_good_one_copied(
    world: World, config: Config, media: Path
) -> None:
    stick = world.stick()
    newer = DUMP_NAME.replace("20261120", "20261121")
    whole = (media / "backups" / DUMP_NAME).read_bytes()
    (media / "backups" / newer).write_bytes(whole[:-12])
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.PARTIAL
    assert report.dump == DUMP_NAME
    assert newer in report.findings[0].items[0]
    assert [path.name for path in (stick.backups / "database").iterdir()] == [DUMP_NAME]


async def test_a_source_that_is_not_mounted_deletes_nothing(world: World, config: Config, media: Path) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        world.devices.pull(stick)
        for path in sorted((media / "upload").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.report.outcome is Outcome.PARTIAL
    assert [finding.code for finding in world.report.findings] == ["deletions-held"]
    assert (stick.backups / "upload/u1/aa/bb/1.jpg").exists()


async def test_what_immich_deleted_is_moved_aside(world: World, config: Config, media: Path) -> None:
    stick = world.stick()
    (media / "upload/u1/aa/bb/gone.jpg").write_bytes(b"gone")
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        world.devices.pull(stick)
        (media / "upload/u1/aa/bb/gone.jpg").unlink()
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.report.outcome is Outcome.OK
    assert [path.name for path in stick.backups.glob("deleted/*/upload/u1/aa/bb/*")] == ["gone.jpg"]


async def test_a_second_run_writes_nothing_that_is_there(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        world.devices.pull(stick)
        copied, steps = len(world.copier.copied), len(world.script.steps)
        world.devices.plug_again(stick)
        await running.runs(2)
    assert len(world.copier.copied) == copied
    written = [step for step in world.script.steps[steps:] if step.startswith("target.write")]
    assert set(written) == {"target.write ."}  # its page and its state
    assert sum(stage.files for stage in world.report.stages) == 0


# The source is not what it should be ----------------------------------------------------------------------


async def test_a_wrong_media_location_is_a_failed_run(world: World, config: Config, tmp_path: Path) -> None:
    wrong = config.model_copy(update={"media_location": tmp_path / "nowhere"})
    report = await _run(world, wrong)
    assert report.outcome is Outcome.FAILED
    assert "no photo was backed up" in str(report.findings)


async def test_one_missing_folder_is_named_and_the_others_are_backed_up(world: World, config: Config) -> None:
    stick = world.stick()
    (config.media_location / "profile").rename(config.media_location / "elsewhere")
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.PARTIAL
    assert (stick.backups / "upload/u1/aa/bb/1.jpg").exists()


async def test_a_dump_that_changes_while_it_is_copied_does_not_keep_the_photos_back(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    stick = world.stick()
    copy_into = ServerFiles.copy_into

    def then_change(source: ServerFiles, path: Path, sink: Sink) -> None:
        copy_into(source, path, sink)
        path.write_bytes(path.read_bytes() + b"more")

    monkeypatch.setattr(ServerFiles, "copy_into", then_change)
    report = await _run(world, config, stick)
    assert report.outcome is Outcome.PARTIAL
    assert [finding.code for finding in report.findings] == ["source-unreadable", "any-marked-disk"]
    assert not list((stick.backups / "database").glob("*.gz"))
    assert (stick.backups / "upload/u1/aa/bb/1.jpg").exists()


# What was in flight ---------------------------------------------------------------------------------------


def _torn(stick: Stick) -> Path:
    """A photo whose content is lost, though its size and time are right."""
    photo = stick.backups / "upload/u1/aa/bb/1.jpg"
    facts = photo.stat()
    photo.write_bytes(b"\0" * facts.st_size)
    os.utime(photo, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return photo


@pytest.mark.parametrize("left_by", ["pull", "flush"])
async def test_what_was_in_flight_when_a_run_was_cut_off_is_copied_again(
    world: World, config: Config, left_by: str
) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        if left_by == "pull":
            world.script.do_at("target.flush", lambda: world.devices.pull(stick) if not world.outcomes else None)
        else:
            world.script.fail("target.flush", FlushFailed("data was lost"))
        world.devices.plug(stick)
        await running.runs(1)
        photo = _torn(stick)
        world.devices.plug_again(stick)
        await running.runs(2)
        assert world.outcomes[1] is Outcome.OK
        assert photo.read_bytes() == b"one"
        codes = [finding.code for finding in world.report.findings]
        assert codes == ["file-system-repaired", "last-run-unfinished", "any-marked-disk"]
        _torn(stick)
        world.devices.plug_again(stick)
        await running.runs(3)
    assert world.report.findings == ()  # nothing was in doubt any more
    assert not (stick.backups / ".in-flight").exists()


async def test_doubt_outlives_a_run_that_is_stopped_before_it_gets_there(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.script.fail("target.flush", FlushFailed("data was lost"))
        world.devices.plug(stick)
        await running.runs(1)
        world.script.fail("target.write config", OSError("the disk hiccups"))
        (config.config_files[0]).write_text("B=2\n")
        world.devices.plug_again(stick)
        await running.runs(2)
        assert world.outcomes[1] is Outcome.FAILED
        photo = _torn(stick)
        world.devices.plug_again(stick)
        await running.runs(3)
    assert world.outcomes[2] is Outcome.OK
    assert photo.read_bytes() == b"one"


async def test_a_torn_list_puts_every_file_in_doubt(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        photo = _torn(stick)
        (stick.backups / ".in-flight").mkdir()
        (stick.backups / ".in-flight/files.3").write_bytes(b"u1/aa")
        world.devices.plug_again(stick)
        await running.runs(2)
    assert photo.read_bytes() == b"one"


async def test_doubt_stays_while_the_source_is_away(world: World, config: Config) -> None:
    stick = world.stick()
    library = config.media_location
    async with daemon_on(world, config) as running:
        world.script.fail("target.flush", FlushFailed("data was lost"))
        world.devices.plug(stick)
        await running.runs(1)
        photo = _torn(stick)
        (library / "upload").rename(library / "away")
        (library / "upload").mkdir()
        world.devices.plug_again(stick)
        await running.runs(2)
        assert world.outcomes[1] is Outcome.PARTIAL
        (library / "upload").rmdir()
        (library / "away").rename(library / "upload")
        world.devices.plug_again(stick)
        await running.runs(3)
    assert photo.read_bytes() == b"one"


async def test_a_doubted_file_that_cannot_be_copied_is_not_called_good(world: World, config: Config) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.script.fail("target.flush", FlushFailed("data was lost"))
        world.devices.plug(stick)
        await running.runs(1)
        _torn(stick)
        world.copier.refuses.add(b"u1/aa/bb/1.jpg")
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.outcomes[1] is Outcome.PARTIAL
    assert "files-failed" in [finding.code for finding in world.report.findings]


async def test_an_original_that_lost_its_content_on_the_server_is_kept_on_the_disk(
    world: World, config: Config
) -> None:
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        (config.media_location / "upload/u1/aa/bb/1.jpg").write_bytes(b"")
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.outcomes[1] is Outcome.PARTIAL
    assert [finding.code for finding in world.report.findings] == ["originals-changed"]
    (kept,) = (path for path in (stick.backups / "deleted").rglob("1.jpg"))
    assert kept.read_bytes() == b"one"


async def test_a_drive_with_another_partition_in_the_queue_stays_on(world: World, config: Config) -> None:
    both = [world.stick(1), world.stick(2)]
    sequence = both[0].seen.plug_in.disk_sequence
    second = both[1].seen
    both[1].seen = replace(second, plug_in=replace(second.plug_in, disk_sequence=sequence))
    disks = config.disks.model_copy(update={"power_off": True})
    async with daemon_on(world, config.model_copy(update={"disks": disks})) as running:
        for stick in both:
            world.devices.plug(stick)
        await running.runs(2)
    assert world.outcomes == [Outcome.OK, Outcome.OK]
    assert world.script.steps.count("disks.power_off") == 1


async def test_a_disk_that_a_lost_bus_left_mounted_is_unmounted_at_the_next_start(world: World, config: Config) -> None:
    stick = world.stick()
    world.script.hold("copier.copy library")
    with pytest.raises(BusLost):  # noqa: PT012
        async with daemon_on(world, config) as running:
            world.devices.plug(stick)
            await running.reached("copier.copy library")
            world.script.fail("disks.unmount", BusLost("the connection is gone"))
            running.bus_lost.set()
            await running.runs(1)
    assert stick.mounted_by == "us"
    async with daemon_on(world, config):
        await quiet()
    assert stick.mounted_by == ""
