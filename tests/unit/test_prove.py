"""What is read back from the disk: what was just copied, and in turn what was there before; what is found is mended."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

import pytest
from tests.support.fakes import World
from tests.support.plugging import Plugging, codes, many, originals, other_config, plugging
from tests.support.running import daemon_on, quiet

from immich_usb_backup.adapters import manifest_record, tree
from immich_usb_backup.config import Config
from immich_usb_backup.errors import DiskGone
from immich_usb_backup.messages import headline
from immich_usb_backup.model import Outcome, Progress, RunReport, Stage
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.disk_state import STATE
from immich_usb_backup.policy.manifest import DiskRecord, Known
from immich_usb_backup.requests import Refusal, Refused

ROT = {"disk-rotten", "rotten-on-disk", "source-suspicious", "content-differs", "files-failed"}
PHOTO = "upload/u1/aa/bb/1.jpg"
OTHER = "library/admin/2026/2.jpg"


def spoil(path: Path, content: bytes = b"0ne") -> None:
    """Another content, and the same size and time, as when it rots."""
    facts = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def verifying(config: Config, **settings: object) -> Config:
    return other_config(config, verification=settings)


def asset(path: str, content: bytes) -> Asset:
    return Asset(path.encode(), hashlib.sha1(content).digest())


async def lines(world: World, plug_in: Plugging) -> dict[str, Known]:
    """The server's manifest of the disk."""
    manifest = await world.manifests.open(plug_in.stick.seen.uuid)
    try:
        return {path.decode(): known for path, _, known in await manifest.least_proven(10_000, before=2**40)}
    finally:
        await manifest.close()


def read_again(report: RunReport) -> str:
    return next((stage.summary for stage in report.stages if stage.stage is Stage.PROVE), "")


# What was just copied -------------------------------------------------------------------------------------


async def test_what_was_copied_is_proven_by_immichs_sha1_or_by_the_servers_file(world: World, config: Config) -> None:
    world.asset_books.assets = [asset(PHOTO, b"one")]
    async with plugging(world, config) as plug_in:
        report = await plug_in()
        known = await lines(world, plug_in)
    assert report.outcome is Outcome.OK
    assert {path: line.digest for path, line in known.items()} == {
        path: hashlib.sha1(content).digest() for path, content in originals(config.media_location).items()
    }
    assert all(line.proven for line in known.values())


async def test_without_reading_back_nothing_is_called_proven(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, read_back=False, minutes=0)) as plug_in:
        await plug_in()
        known = await lines(world, plug_in)
    assert {(line.digest, line.proven) for line in known.values()} == {(b"", 0)}
    assert "target.sha1s" not in world.script.steps


def _fail_to_keep(world: World, disk: Path, times: int) -> None:
    """The disk does not keep what is written, so many times."""
    left = iter(range(times))

    def hook() -> None:
        if (disk / PHOTO).exists() and next(left, None) is not None:
            spoil(disk / PHOTO)

    world.script.do_at("target.flush", hook)


@pytest.mark.parametrize("immich", [True, False])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_copy_that_does_not_read_back_is_copied_again(
    world: World, config: Config, times: int, immich: bool
) -> None:
    world.asset_books.assets = [asset(PHOTO, b"one")] if immich else []
    async with plugging(world, config) as plug_in:
        _fail_to_keep(world, plug_in.stick.backups, times)
        report = await plug_in()
        assert (report.outcome, (plug_in.stick.backups / PHOTO).read_bytes()) == (Outcome.OK, b"one")
    assert world.copier.copied.count(b"u1/aa/bb/1.jpg") == times + 1
    assert sum(stage.files for stage in report.stages if stage.stage is Stage.UPLOAD) == 2


async def test_a_disk_that_never_gives_it_back_is_not_believed_and_asked_again_by_the_next_run(
    world: World, config: Config
) -> None:
    async with plugging(world, config) as plug_in:
        _fail_to_keep(world, plug_in.stick.backups, 100)
        report = await plug_in()
        assert report.outcome is Outcome.PARTIAL
        failed = next(finding for finding in report.findings if finding.code == "files-failed")
        assert failed.items == (f"{PHOTO}: it reads back from the disk differently than it is on the server",)
        assert world.copier.copied.count(b"u1/aa/bb/1.jpg") == 3
        world.script.do_at("target.flush", lambda: None)
        assert (await plug_in()).outcome is Outcome.OK
        assert (plug_in.stick.backups / PHOTO).read_bytes() == b"one"


async def test_a_copy_that_succeeds_in_the_second_pass_is_not_called_damaged(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, config) as plug_in:
        _fail_to_keep(world, plug_in.stick.backups, 3)
        photo = media / OTHER
        moves = iter([lambda: photo.rename(media / "upload/u1/aa/bb/2.jpg")])  # which makes a second pass
        world.script.do_at("copier.copy library", lambda: next(moves, lambda: None)())
        report = await plug_in()
        assert "files-failed" in codes(report)
        assert "rotten-on-disk" not in codes(report)
        assert (plug_in.stick.backups / PHOTO).read_bytes() == b"one"


async def test_a_file_that_was_changed_after_its_upload_is_kept_as_it_is(world: World, config: Config) -> None:
    world.asset_books.assets = [asset(PHOTO, b"as uploaded")]
    async with plugging(world, config) as plug_in:
        report = await plug_in()
        known = await lines(world, plug_in)
        assert report.outcome is Outcome.OK
        assert (plug_in.stick.backups / PHOTO).read_bytes() == b"one"
        assert known[PHOTO].digest == hashlib.sha1(b"one").digest()


async def test_a_file_that_changes_on_the_server_meanwhile_is_copied_as_it_is_then(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, config) as plug_in:
        edits = iter([lambda: (media / PHOTO).write_bytes(b"edited")])
        world.script.do_at("target.flush", lambda: next(edits, lambda: None)())
        report = await plug_in()
        assert report.outcome is Outcome.OK
        assert originals(plug_in.stick.backups) == originals(media)


async def test_a_file_that_changes_all_the_time_is_no_reason_to_accuse_the_disk(
    world: World, config: Config, media: Path
) -> None:
    contents = (b"edited %d" % number for number in range(100))
    async with plugging(world, config) as plug_in:
        world.script.do_at("target.flush", lambda: (media / PHOTO).write_bytes(next(contents)))
        report = await plug_in()
        assert not ROT & set(codes(report))
        world.script.do_at("target.flush", lambda: None)
        assert (await plug_in()).outcome is Outcome.OK
        assert originals(plug_in.stick.backups) == originals(media)


async def test_a_run_that_is_cut_off_keeps_the_proofs_of_what_it_has_read(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immich_usb_backup.policy.in_flight.BATCH_FILES", 2)
    world.script.hold("copier.copy profile")
    async with plugging(world, config) as plug_in:
        world.devices.plug(plug_in.stick)
        await plug_in.running.reached("copier.copy profile")
        world.devices.pull(plug_in.stick)
        await plug_in.running.runs(1)
        known = await lines(world, plug_in)
    assert {path for path, line in known.items() if line.proven} >= {PHOTO, OTHER}


# In turn --------------------------------------------------------------------------------------------------


async def test_what_was_read_lately_is_left_alone_and_after_a_month_it_has_its_turn(
    world: World, config: Config
) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        assert read_again(await plug_in()) == ""
        before = await lines(world, plug_in)
        world.ports.clock.move_on(days=31)  # type: ignore[attr-defined]
        report = await plug_in()
        assert not ROT & set(codes(report))
        assert "6 files" in read_again(report)
        after = await lines(world, plug_in)
        assert all(after[path].proven > before[path].proven for path in before)
        assert read_again(await plug_in()) == ""


async def test_the_disks_manifest_learns_what_was_proven(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        manifest = plug_in.stick.backups / "manifest.jsonl.gz"
        before = manifest.read_bytes()
        world.ports.clock.move_on(days=31)  # type: ignore[attr-defined]
        await plug_in()
        assert manifest.read_bytes() != before
        await plug_in()
        assert not plug_in.walked


async def test_the_time_is_kept_and_the_rest_has_its_turn_at_the_next_plug_in(
    world: World, config: Config, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immich_usb_backup.policy.rereading._AT_ONCE_FILES", 10)
    many(media, 100)
    async with plugging(world, verifying(config, minutes=1, again_after_days=1)) as plug_in:
        await plug_in()
        world.ports.clock.move_on(days=2)  # type: ignore[attr-defined]
        first = await plug_in()
        assert "left for the next time" in read_again(first)
        seen = await lines(world, plug_in)
        newest = max(line.proven for line in seen.values())
        done = {path for path, line in seen.items() if newest - line.proven < 86_400}
        assert 0 < len(done) < 100
        await plug_in()
        again = await lines(world, plug_in)
        assert all(again[path].proven == seen[path].proven for path in done)
        assert sum(again[path].proven > seen[path].proven for path in again) >= len(done)


async def test_a_clock_that_is_set_back_does_not_have_it_read_for_ever(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, minutes=0)) as plug_in:
        await plug_in()
        setting = iter([lambda: world.ports.clock.move_on(days=-2)])  # type: ignore[attr-defined]
        world.script.do_at("target.sha1s", lambda: next(setting, lambda: None)())
        assert "6 files" in read_again(await _verify(plug_in, "all"))


async def test_no_minutes_is_no_reading(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, minutes=0, again_after_days=0)) as plug_in:
        await plug_in()
        steps = len(world.script.steps)
        assert read_again(await plug_in()) == ""
    assert "target.sha1s" not in world.script.steps[steps:]


async def test_what_was_never_proven_comes_first_and_is_proven_by_the_server(
    world: World, config: Config, media: Path
) -> None:
    unproven = verifying(config, read_back=False, minutes=0)
    async with plugging(world, unproven) as plug_in:
        await plug_in()
        plug_in.running.daemon.config = verifying(config)
        report = await plug_in()
        assert (report.outcome, "6 files" in read_again(report)) == (Outcome.OK, True)
        known = await lines(world, plug_in)
    contents = originals(media)
    assert {path: line.digest for path, line in known.items()} == {
        path: hashlib.sha1(content).digest() for path, content in contents.items()
    }


async def test_what_nothing_is_known_of_is_not_accused_while_its_source_is_away(
    world: World, config: Config, media: Path, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "old.jpg").write_bytes(b"old")
    settings = other_config(verifying(config, read_back=False, minutes=0), extra={"pictures": str(pictures)})
    async with plugging(world, settings) as plug_in:
        await plug_in()
        plug_in.running.daemon.config = other_config(settings, verification={})
        pictures.rename(tmp_path / "away")
        report = await plug_in()
        assert (report.outcome, ROT & set(codes(report))) == (Outcome.PARTIAL, set())
        assert (await lines(world, plug_in))["extra/pictures/old.jpg"].proven == 0
        (tmp_path / "away").rename(pictures)
        assert "1 file (" in read_again(await plug_in())
        assert (await lines(world, plug_in))["extra/pictures/old.jpg"].proven > 0


# What has gone bad ----------------------------------------------------------------------------------------


async def test_rot_on_the_disk_is_found_in_turn_said_and_healed(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, again_after_days=0)) as plug_in:
        await plug_in()
        photo = plug_in.stick.backups / PHOTO
        spoil(photo)
        report = await plug_in()
        assert report.outcome is Outcome.PARTIAL
        assert {"disk-rotten", "moved-aside"} <= set(codes(report))
        assert photo.read_bytes() == b"one"
        (kept,) = plug_in.stick.backups.glob(f"deleted/*/{PHOTO}")
        assert kept.read_bytes() == b"0ne"
        assert codes(await plug_in()) == []
        assert not plug_in.walked


async def test_rot_that_the_server_cannot_mend_is_named_until_it_can(
    world: World, config: Config, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was read lately: it is read first at each plug-in."""
    async with plugging(world, config) as plug_in:
        await plug_in()
        spoil(plug_in.stick.backups / PHOTO)
        monkeypatch.setattr(tree, "open_file", _unreadable(media / PHOTO))
        for report in (await _verify(plug_in, "all"), await plug_in()):
            assert (report.outcome, "rotten-on-disk" in codes(report)) == (Outcome.PARTIAL, True)
            assert (plug_in.stick.backups / PHOTO).read_bytes() == b"0ne"
        monkeypatch.undo()
        assert "disk-rotten" in codes(await plug_in())
        assert (plug_in.stick.backups / PHOTO).read_bytes() == b"one"


class _Bad(FileIO):
    """A file on a scratched place."""

    def readinto(self, buffer: object, /) -> int:
        raise OSError(errno.EIO, "Input/output error")


def _unreadable(path: Path) -> Callable[[int, bytes], FileIO]:
    """``tree.open_file`` where this file is on a scratched place."""
    real, bad = tree.open_file, path.stat().st_ino

    def open_file(at: int, name: bytes) -> FileIO:
        file = real(at, name)
        if os.fstat(file.fileno()).st_ino != bad:
            return file
        with file:
            return _Bad(os.dup(file.fileno()))

    return open_file


async def test_the_disk_says_that_all_is_there_while_it_is_read_and_not_while_it_is_healed(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, verifying(config, again_after_days=0)) as plug_in:
        await plug_in()
        spoil(plug_in.stick.backups / PHOTO)
        (media / "upload/new.jpg").write_bytes(b"new")
        seen: list[tuple[str, bool]] = []

        def look(step: str) -> None:
            seen.append((step, '"writing": true' in (plug_in.stick.backups / STATE).read_text()))

        world.script.do_at("target.sha1s", lambda: look("read"))
        world.script.do_at("copier.copy upload", lambda: look("copy"))
        await plug_in()
    new = [("copy", True), ("read", True)]
    assert seen == [*new, ("read", False), ("read", False), *new]  # in turn, and compared with the server's


async def test_rot_in_a_file_that_is_held_is_named_and_repeats_no_full_backup(
    world: World, config: Config, media: Path
) -> None:
    photos = many(media, 120)
    settings = verifying(config, again_after_days=0)
    async with plugging(world, settings) as plug_in:
        await plug_in()
        for path in photos[:110]:
            path.unlink()
        held = plug_in.stick.backups / photos[0].relative_to(media)
        spoil(held, b"000.JPG")
        plug_in.running.daemon.config = other_config(settings, disk={"STICK1": {"mode": "full"}})
        copied = len(world.copier.copied)
        report = await plug_in()
        assert {"deletions-held", "rotten-on-disk"} <= set(codes(report))
        assert held.read_bytes() == b"000.JPG"
        assert len(world.copier.copied) - copied == len(originals(media))


async def test_what_reading_in_turn_finds_is_said_beside_what_the_planning_found(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, verifying(config, again_after_days=0)) as plug_in:
        await plug_in()
        for path in (PHOTO, OTHER):
            spoil(plug_in.stick.backups / path)
        os.utime(media / PHOTO, (1_000_000_000, 1_000_000_000))  # it is compared
        report = await plug_in()
    found = [finding.items for finding in report.findings if finding.code == "disk-rotten"]
    assert found == [(PHOTO,), (OTHER,)]


@pytest.mark.parametrize("mode", ["quick", "verify", "full"])
async def test_a_rotten_original_never_replaces_the_good_copy(
    world: World, config: Config, media: Path, mode: str
) -> None:
    settings = other_config(verifying(config, again_after_days=0), disk={"STICK1": {"mode": mode}})
    world.asset_books.assets = [asset(PHOTO, b"one")]
    async with plugging(world, config) as plug_in:
        await plug_in()
        plug_in.running.daemon.config = settings
        spoil(media / PHOTO)
        spoil(media / "profile/u1/me.jpg", b"m!")
        for _ in range(2):
            report = await plug_in()
            assert (plug_in.stick.backups / PHOTO).read_bytes() == b"one"
            assert (plug_in.stick.backups / "profile/u1/me.jpg").read_bytes() == b"me"
            assert ("source-suspicious" in codes(report)) is (mode != "quick")


async def test_the_upload_tells_which_side_is_good_where_no_digest_was_noted(
    world: World, config: Config, media: Path
) -> None:
    world.asset_books.assets = [asset(PHOTO, b"one"), asset(OTHER, b"two")]
    async with plugging(world, verifying(config, read_back=False, minutes=0)) as plug_in:
        await plug_in()
        plug_in.running.daemon.config = verifying(config)
        spoil(plug_in.stick.backups / PHOTO)
        spoil(media / OTHER, b"2wo")
        report = await plug_in()
        assert {"disk-rotten"} <= set(codes(report))
        assert "content-differs" not in codes(report)
        assert (plug_in.stick.backups / PHOTO).read_bytes() == b"one"
        assert (plug_in.stick.backups / OTHER).read_bytes() == b"two"


# Unplugging while it reads --------------------------------------------------------------------------------


async def _reading(plug_in: Plugging) -> None:
    """Plugged in, everything is on it, and it is being read."""
    plug_in.world.devices.plug_again(plug_in.stick)
    await plug_in.running.reached("target.sha1s")


async def test_a_pull_while_it_reads_costs_nothing_and_is_told_so(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, again_after_days=0)) as plug_in:
        await plug_in()
        world.devices.pull(plug_in.stick)
        world.script.hold("target.sha1s")
        await _reading(plug_in)
        state = (plug_in.stick.backups / STATE).read_text()
        assert '"writing": false' in state
        world.devices.pull(plug_in.stick)
        await plug_in.running.runs(2)
        report = world.watchers.reports[-1]
        assert (report.outcome, codes(report)) == (Outcome.INTERRUPTED, ["disk-gone"])
        assert "everything is on it, nothing is lost" in report.findings[0].message
        world.script.go_on("target.sha1s")
        after = await plug_in()
        assert (after.outcome, plug_in.walked) == (Outcome.OK, False)


async def test_eject_ends_the_reading_and_the_run_is_a_good_one(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, again_after_days=0, minutes="unlimited")) as plug_in:
        await plug_in()
        world.devices.pull(plug_in.stick)
        world.script.hold("target.sha1s")
        await _reading(plug_in)
        assert await plug_in.running.daemon.asked.eject("STICK1") == "STICK1"
        report = world.watchers.reports[-1]
        assert (report.outcome, report.safe_to_unplug, plug_in.stick.mounted_by) == (Outcome.OK, True, "")
        assert headline(report).endswith("safe to unplug")
        assert "6 files left for the next time" in read_again(report)


@pytest.mark.parametrize(("times", "outcome"), [(1, Outcome.OK), (2, Outcome.INTERRUPTED)])
async def test_cancelled_while_it_reads_a_run_is_a_good_one_and_cancelled_again_it_is_not(
    world: World, config: Config, times: int, outcome: Outcome
) -> None:
    async with plugging(world, verifying(config, again_after_days=0, minutes="unlimited")) as plug_in:
        await plug_in()
        world.devices.pull(plug_in.stick)
        world.script.hold("target.sha1s")
        await _reading(plug_in)
        world.script.hold("target.free_bytes")
        for _ in range(times):
            assert await plug_in.running.daemon.asked.cancel("STICK1") == "STICK1"
            await plug_in.running.reached("target.free_bytes")
        world.script.go_on("target.free_bytes")
        await plug_in.running.runs(2)
    assert (world.report.outcome, world.report.safe_to_unplug, plug_in.stick.mounted_by) == (outcome, True, "")


async def test_a_stop_of_the_service_ends_the_reading_too(world: World, config: Config) -> None:
    settings = verifying(config, again_after_days=0)
    stick = world.stick()
    async with plugging(world, settings, stick) as plug_in:
        await plug_in()
        world.devices.pull(plug_in.stick)
        world.script.hold("target.sha1s")
        await _reading(plug_in)
    assert world.outcomes == [Outcome.OK, Outcome.OK]
    assert stick.mounted_by == ""


async def test_eject_is_refused_with_words_while_photos_are_copied(world: World, config: Config) -> None:
    world.script.hold("copier.copy library")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.reached("copier.copy library")
        with pytest.raises(Refused) as refused:
            await running.daemon.asked.eject("STICK1")
        assert refused.value.why is Refusal.BUSY
        assert "what is new is not on it yet" in refused.value.message
        world.script.go_on("copier.copy library")
        await running.runs(1)
    assert world.outcomes == [Outcome.OK]


async def test_eject_unmounts_what_a_desktop_has_mounted_afterwards(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        plug_in.stick.mounted_by = "desktop"
        assert await plug_in.running.daemon.asked.eject("STICK1") == "STICK1"
        assert plug_in.stick.mounted_by == ""
        assert await plug_in.running.daemon.asked.eject("STICK1") == "STICK1"
    assert len(world.watchers.reports) == 1


async def test_eject_of_a_disk_that_waits_for_its_backup_is_refused(world: World, config: Config) -> None:
    world.script.hold("copier.copy library")
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick(1))
        await running.reached("copier.copy library")
        world.devices.plug(world.stick(2))
        await quiet()
        with pytest.raises(Refused) as refused:
            await running.daemon.asked.eject("STICK2")
        assert "waits for its backup" in refused.value.message
        world.script.go_on("copier.copy library")
        await running.runs(2)


# On demand ------------------------------------------------------------------------------------------------


async def _verify(plug_in: Plugging, what: str) -> RunReport:
    runs = len(plug_in.world.watchers.reports)
    await plug_in.running.daemon.asked.verify("STICK1", what)
    await plug_in.running.runs(runs + 1)
    return plug_in.world.watchers.reports[-1]


async def test_verify_reads_what_is_due_and_all_reads_everything(world: World, config: Config) -> None:
    async with plugging(world, verifying(config, minutes=0)) as plug_in:
        await plug_in()
        assert read_again(await _verify(plug_in, "due")) == ""
        assert "6 files" in read_again(await _verify(plug_in, "all"))
        assert "6 files" in read_again(await _verify(plug_in, "all"))
        world.ports.clock.move_on(days=31)  # type: ignore[attr-defined]
        assert "6 files" in read_again(await _verify(plug_in, ""))
        with pytest.raises(Refused) as refused:
            await plug_in.running.daemon.asked.verify("STICK1", "some")
        assert refused.value.why is Refusal.BAD_CHOICE


async def test_a_verification_of_all_goes_on_where_it_was_cut_off(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("immich_usb_backup.policy.rereading._AT_ONCE_FILES", 2)
    async with plugging(world, verifying(config, minutes=0)) as plug_in:
        await plug_in()
        portions = iter([None, None])

        def third() -> None:
            if next(portions, "third") == "third":
                world.devices.pull(plug_in.stick)
                raise DiskGone("gone")

        world.ports.clock.move_on(days=1)  # type: ignore[attr-defined]
        world.script.do_at("target.sha1s", third)
        report = await _verify(plug_in, "all")
        assert report.outcome is Outcome.INTERRUPTED
        world.script.do_at("target.sha1s", lambda: None)
        await plug_in()
        assert "2 files" in read_again(await _verify(plug_in, "all"))
        assert "6 files" in read_again(await _verify(plug_in, "all"))


async def test_how_far_the_reading_is_is_shown_with_its_rate(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Progress] = []
    monkeypatch.setattr(world.watchers, "progress", shown.append)
    async with plugging(world, verifying(config, minutes=0)) as plug_in:
        await plug_in()
        await _verify(plug_in, "all")
    last = [progress for progress in shown if progress.stage is Stage.PROVE][-1]
    assert last.done == last.total == sum(map(len, originals(config.media_location).values()))
    assert last.rate
    assert last.seconds_left == 0


def test_the_record_remembers_when_a_verification_began() -> None:
    record = DiskRecord(verifying=datetime(2026, 11, 21, tzinfo=UTC))
    assert manifest_record.load(manifest_record.dump(record)) == record
    older = manifest_record.dump(DiskRecord()).replace(',"verifying":null', "")
    assert manifest_record.load(older) == DiskRecord()
