"""Runs one after the other on one stick: what is believed, walked, held, approved, purged, refused, taken over."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.support.fakes import World
from tests.support.plugging import codes, many, originals, other_config, plugging

from immich_usb_backup.config import Config
from immich_usb_backup.errors import DiskFull
from immich_usb_backup.model import Health, Mode, Outcome
from immich_usb_backup.policy.disk_state import STATE

# What is believed -----------------------------------------------------------------------------------------


async def test_of_a_disk_that_is_as_it_was_left_only_the_page_is_written_and_nothing_walked(
    world: World, config: Config
) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        steps = len(world.script.steps)
        second = await plug_in()
    assert (second.outcome, codes(second), plug_in.walked) == (Outcome.OK, [], False)
    wrote = ("target.write", "target.remove", "target.move", "target.make", "copier", "target.sha", "target.walk")
    done = [step for step in world.script.steps[steps:] if step.startswith(wrote)]
    assert done == ["target.write ."] * 3  # a run is under way, the page, it is over


@pytest.mark.parametrize("foreign", ["more", "less", "state", "marker"])
async def test_any_sign_of_other_hands_leads_to_a_walk(world: World, config: Config, foreign: str) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        backups = plug_in.stick.backups
        if foreign == "more":
            (plug_in.stick.root / "film.mkv").write_bytes(b"film")
        elif foreign == "less":
            (backups / "upload/u1/aa/bb/1.jpg").unlink()
        elif foreign == "state":
            (backups / STATE).unlink()
        else:
            (backups / "marker.toml").write_text('name = "Blue"')
        report = await plug_in()
        assert plug_in.walked
        assert report.outcome is Outcome.OK
        assert originals(backups) == originals(config.media_location)
        await plug_in()
        assert not plug_in.walked


async def test_what_others_did_to_the_backup_is_said_and_repaired(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        backups = plug_in.stick.backups
        (backups / "upload/u1/aa/bb/1.jpg").unlink()
        (backups / "library/admin/2026/2.jpg").write_bytes(b"two, edited")
        (backups / "profile/stray.jpg").write_bytes(b"stray" * 100_000)
        report = await plug_in()
        assert {"files-missing", "files-altered"} <= set(codes(report))
        assert originals(backups) == originals(config.media_location)
        kept = {path.name for path in (backups / "deleted").rglob("*") if path.is_file()}
    assert kept == {"stray.jpg", "2.jpg"}


async def test_a_record_that_is_old_is_not_believed(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        await plug_in()
        assert not plug_in.walked
        world.ports.clock.move_on(days=31)  # type: ignore[attr-defined]
        await plug_in()
        assert plug_in.walked


async def test_a_server_that_forgot_everything_copies_nothing_again(world: World, config: Config) -> None:
    (config.media_location / "library/admin/12:30.jpg").write_bytes(b"colon")
    async with plugging(world, config) as plug_in:
        await plug_in()
        copied = list(world.copier.copied)
        shutil.rmtree(world.state / "manifests")
        report = await plug_in()
    assert (report.outcome, world.copier.copied) == (Outcome.OK, copied)
    assert sum(stage.files for stage in report.stages) == 0


async def test_a_manifest_that_is_lost_on_both_sides_is_built_anew(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        copied = list(world.copier.copied)
        shutil.rmtree(world.state / "manifests")
        (plug_in.stick.backups / "manifest.jsonl.gz").write_bytes(b"damaged")
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.OK, ["manifest-unusable"])
        assert world.copier.copied == copied
        assert codes(await plug_in()) == []


async def test_a_disk_of_a_newer_version_is_left_alone(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        state = plug_in.stick.backups / STATE
        fields = json.loads(state.read_text())
        state.write_text(json.dumps({**fields, "version": 2}))
        before = originals(plug_in.stick.backups)
        report = await plug_in()
    assert (report.outcome, codes(report)) == (Outcome.FAILED, ["manifest-unusable"])
    assert originals(plug_in.stick.backups) == before


# Modes ----------------------------------------------------------------------------------------------------


async def test_verify_finds_what_rotted_on_the_disk_and_heals_it(world: World, config: Config) -> None:
    async with plugging(world, other_config(config, disk={"STICK1": {"mode": "verify"}})) as plug_in:
        await plug_in()
        photo = plug_in.stick.backups / "upload/u1/aa/bb/1.jpg"
        facts = photo.stat()
        photo.write_bytes(b"0ne")
        os.utime(photo, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.PARTIAL, ["disk-rotten", "moved-aside"])
        assert photo.read_bytes() == b"one"
        assert codes(await plug_in()) == []


async def test_verify_does_not_overwrite_a_good_copy_by_a_rotten_original(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, other_config(config, disk={"STICK1": {"mode": "verify"}})) as plug_in:
        await plug_in()
        photo = media / "upload/u1/aa/bb/1.jpg"
        facts = photo.stat()
        photo.write_bytes(b"0ne")
        os.utime(photo, ns=(facts.st_atime_ns, facts.st_mtime_ns))
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.PARTIAL, ["source-suspicious"])
        assert (plug_in.stick.backups / "upload/u1/aa/bb/1.jpg").read_bytes() == b"one"


async def test_full_copies_everything_again(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        copied = len(world.copier.copied)
        plug_in.running.daemon.config = other_config(config, disk={"STICK1": {"mode": Mode.FULL}})
        report = await plug_in()
    assert report.outcome is Outcome.OK
    assert len(world.copier.copied) == 2 * copied


async def test_a_file_with_another_time_and_the_same_content_is_not_copied(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        copied = list(world.copier.copied)
        os.utime(media / "upload/u1/aa/bb/1.jpg", (1_000_000_000, 1_000_000_000))
        report = await plug_in()
        assert (report.outcome, world.copier.copied) == (Outcome.OK, copied)
        assert int((plug_in.stick.backups / "upload/u1/aa/bb/1.jpg").stat().st_mtime) == 1_000_000_000


# What is mirrored -----------------------------------------------------------------------------------------


async def test_what_immich_moves_is_moved_on_the_disk(world: World, config: Config, media: Path) -> None:
    photos = many(media, 50)
    async with plugging(world, config) as plug_in:
        await plug_in()
        copied = list(world.copier.copied)
        (media / "library/admin/2025").mkdir()
        for path in photos:
            path.rename(media / "library/admin/2025" / path.name)
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.OK, [])
        assert world.copier.copied == copied
        assert originals(plug_in.stick.backups) == originals(media)


async def test_two_files_that_change_places_do_so_on_the_disk(world: World, config: Config, media: Path) -> None:
    one, two = media / "upload/u1/aa/bb/1.jpg", media / "library/admin/2026/2.jpg"
    async with plugging(world, config) as plug_in:
        await plug_in()
        one.rename(media / "third")
        two.rename(one)
        (media / "third").rename(two)
        report = await plug_in()
        assert report.outcome is Outcome.OK
        assert originals(plug_in.stick.backups) == originals(media)
        assert sum(stage.files for stage in (await plug_in()).stages) == 0


async def test_extra_folders_and_exclude_patterns(world: World, config: Config, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    (pictures / "2001").mkdir(parents=True)
    (pictures / "2001/old.jpg").write_bytes(b"old")
    (pictures / "2001/old.tmp").write_bytes(b"temporary")
    settings = other_config(config, extra={"pictures": str(pictures)}, exclude={"pictures": ["*.tmp"]})
    async with plugging(world, settings) as plug_in:
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.OK, ["excluded", "any-marked-disk"])
        there = plug_in.stick.backups / "extra/pictures/2001"
        assert [path.name for path in there.iterdir()] == ["old.jpg"]
        plug_in.running.daemon.config = config
        report = await plug_in()
        assert codes(report) == ["extra-not-configured"]
        assert (there / "old.jpg").read_bytes() == b"old"


async def test_a_file_that_moves_while_it_is_copied_is_met_in_a_second_pass(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, config) as plug_in:
        photo = media / "library/admin/2026/2.jpg"
        hooks = iter([lambda: photo.rename(media / "upload/u1/aa/bb/2.jpg")])
        world.script.do_at("copier.copy library", lambda: next(hooks, lambda: None)())
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.OK, ["files-vanished", "any-marked-disk"])
        assert originals(plug_in.stick.backups) == originals(media)


# Deletions ------------------------------------------------------------------------------------------------


async def test_many_deletions_are_held_until_they_are_approved(world: World, config: Config, media: Path) -> None:
    photos = many(media, 120)
    async with plugging(world, config) as plug_in:
        await plug_in()
        for path in photos[:110]:
            path.unlink()
        (media / "upload/u1/new.jpg").write_bytes(b"new")
        report = await plug_in()
        backups = plug_in.stick.backups
        assert (report.outcome, codes(report)) == (Outcome.PARTIAL, ["deletions-held"])
        assert "approve" in report.findings[0].hint
        assert (backups / "upload/u1/new.jpg").read_bytes() == b"new"
        assert codes(await plug_in()) == ["deletions-held"]
        assert len(list((backups / "upload/u1/aa").glob("*.jpg"))) == 120
        assert await world.manifests.approve(plug_in.stick.seen.uuid) == 110
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.OK, ["moved-aside"])
        assert originals(backups) == originals(media)
        assert len(list((backups / "deleted").rglob("*.jpg"))) == 110


async def test_an_approval_does_not_hold_for_more_than_was_shown(world: World, config: Config, media: Path) -> None:
    photos = many(media, 130)
    async with plugging(world, config) as plug_in:
        await plug_in()
        for path in photos[:110]:
            path.unlink()
        await plug_in()
        await world.manifests.approve(plug_in.stick.seen.uuid)
        photos[111].unlink()
        report = await plug_in()
        assert codes(report) == ["deletions-held"]
        assert "for fewer files" in report.findings[0].message
        assert codes(await plug_in()) == ["deletions-held"]


@pytest.mark.parametrize("name", ["approve-deletions", "approve-deletions.txt", "Approve-Deletions.rtf"])
async def test_a_file_on_the_disk_approves_once(world: World, config: Config, media: Path, name: str) -> None:
    photos = many(media, 250)
    async with plugging(world, config) as plug_in:
        await plug_in()
        for path in photos[:110]:
            path.unlink()
        await plug_in()
        approval = plug_in.stick.backups / name
        approval.write_bytes(b"")
        assert codes(await plug_in()) == ["moved-aside"]
        assert not approval.exists()
        for path in photos[110:230]:
            path.unlink()
        assert codes(await plug_in()) == ["deletions-held"]


async def test_a_file_that_approves_nothing_is_not_kept_for_later(world: World, config: Config, media: Path) -> None:
    photos = many(media, 120)
    async with plugging(world, config) as plug_in:
        await plug_in()
        (plug_in.stick.backups / "approve-deletions.txt").write_bytes(b"")
        for path in photos[:110]:
            path.unlink()
        assert codes(await plug_in()) == ["deletions-held"]
        assert not list(plug_in.stick.backups.glob("approve*"))
        assert codes(await plug_in()) == ["deletions-held"]
        (media / "upload/u1/aa").mkdir(exist_ok=True)
        many(media, 120)
        await plug_in()
        (plug_in.stick.backups / "approve-deletions.txt").write_bytes(b"")
        assert codes(await plug_in()) == ["approval-unused"]


async def test_a_source_without_its_mark_is_not_believed_to_have_deleted(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        (media / "upload/.immich").unlink()
        (media / "upload/u1/aa/bb/1.jpg").unlink()
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.PARTIAL, ["deletions-held"])
        assert (plug_in.stick.backups / "upload/u1/aa/bb/1.jpg").exists()


async def test_what_was_set_aside_is_purged_when_its_time_is_over(world: World, config: Config, media: Path) -> None:
    many(media, 5)[0].unlink()
    async with plugging(world, config) as plug_in:
        many(media, 5)
        await plug_in()
        (media / "upload/u1/aa/000.jpg").unlink()
        await plug_in()
        deleted = plug_in.stick.backups / "deleted"
        assert [path.name for path in deleted.rglob("*.jpg")] == ["000.jpg"]
        world.ports.clock.move_on(days=29)  # type: ignore[attr-defined]
        await plug_in()
        assert list(deleted.rglob("*.jpg"))
        world.ports.clock.move_on(days=3)  # type: ignore[attr-defined]
        assert "deleted-purged" in codes(await plug_in())
        assert not list(deleted.rglob("*.jpg"))


# Room -----------------------------------------------------------------------------------------------------


async def test_what_was_set_aside_gives_way_to_new_photos_when_there_is_no_room(
    world: World, config: Config, media: Path
) -> None:
    megabyte = b"x" * 1_000_000
    disks = {"automounter_grace_seconds": 0, "reserve_megabytes": 0}
    settings = other_config(config, disks=disks, database={"warn_after_hours": 0})
    async with plugging(world, settings) as plug_in:
        plug_in.stick.capacity = 60_000_000
        for number in range(20):
            (media / f"upload/{number}.jpg").write_bytes(megabyte)
        await plug_in()
        for number in range(20):
            (media / f"upload/{number}.jpg").unlink()
        report = await plug_in()
        assert codes(report) == ["moved-aside"]
        world.ports.clock.move_on(days=1)  # type: ignore[attr-defined]
        for number in range(20, 45):
            (media / f"upload/{number}.jpg").write_bytes(megabyte)
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.OK, ["deleted-purged"])
        assert originals(plug_in.stick.backups) == originals(media)


async def test_a_disk_that_is_too_small_for_the_library_says_by_how_much(world: World, config: Config) -> None:
    stick = world.stick()
    stick.capacity = 1_000_000_000
    settings = other_config(config, disks={"automounter_grace_seconds": 0, "reserve_megabytes": 64_000})
    async with plugging(world, settings, stick) as plug_in:
        report = await plug_in()
    assert (report.outcome, codes(report)) == (Outcome.FAILED, ["disk-full"])
    assert "are missing" in report.findings[0].message
    assert list((stick.backups / "database").iterdir())
    assert not originals(stick.backups)


async def test_a_disk_that_fills_up_ends_with_a_manifest_that_is_true(
    world: World, config: Config, media: Path
) -> None:
    many(media, 10)
    async with plugging(world, config) as plug_in:
        world.copier.full_after = 5
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.FAILED, ["disk-full"])
        world.copier.full_after = None
        report = await plug_in()
        assert report.outcome is Outcome.OK
        assert not plug_in.walked
        assert originals(plug_in.stick.backups) == originals(media)


# Whose disk it is -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["nothing", STATE])
async def test_another_servers_disk_is_not_written_to_until_it_is_adopted(
    world: World, config: Config, tmp_path: Path, lost: str
) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        stick = plug_in.stick
    (stick.backups / lost).unlink(missing_ok=True)
    (tmp_path / "state/server-id").unlink()
    shutil.rmtree(tmp_path / "state/manifests")
    before = {path: path.read_bytes() for path in stick.root.rglob("*") if path.is_file()}
    copied = list(world.copier.copied)
    async with plugging(world, config, stick) as plug_in:
        report = await plug_in()
        assert (report.outcome, codes(report)) == (Outcome.FAILED, ["foreign-backup"])
        assert "'nas'" in report.findings[0].message
        assert {path: path.read_bytes() for path in stick.root.rglob("*") if path.is_file()} == before
        await world.manifests.adopt(stick.seen.uuid)
        assert (await plug_in()).outcome is Outcome.OK
        assert world.copier.copied == copied
        assert (await plug_in()).outcome is Outcome.OK


# A pull, and what comes after -----------------------------------------------------------------------------


async def test_the_first_thing_written_says_that_a_run_is_under_way(world: World, config: Config) -> None:
    stick = world.stick()
    writing = ("target.write", "target.clear", "target.remove", "target.move", "target.make", "copier", "target.set")
    async with plugging(world, config, stick) as plug_in:
        await plug_in()
    assert next(step for step in world.script.steps if step.startswith(writing)) == "target.write ."
    assert not json.loads((stick.backups / STATE).read_text())["writing"]


async def test_the_run_after_a_pull_says_so_and_compares_what_was_in_flight(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        world.script.do_at("target.flush", lambda: world.devices.pull(plug_in.stick) if not world.outcomes else None)
        assert (await plug_in()).outcome is Outcome.INTERRUPTED
        assert json.loads((plug_in.stick.backups / STATE).read_text())["writing"]
        report = await plug_in()
        finding = next(finding for finding in report.findings if finding.code == "last-run-unfinished")
        assert "unplugged too early" in finding.message
        assert "6 files checked again, nothing lost" in finding.message
        assert report.outcome is Outcome.OK
        assert codes(await plug_in()) == []


async def test_a_damaged_file_system_is_not_written_to(world: World, config: Config) -> None:
    async with plugging(world, config) as plug_in:
        world.file_systems.health = Health.DAMAGED
        report = await plug_in()
    assert (report.outcome, codes(report)) == (Outcome.FAILED, ["file-system-damaged"])
    assert not list(plug_in.stick.backups.iterdir())
    assert "disks.mount rw" not in world.script.steps


async def test_a_plan_that_fails_for_lack_of_room_leaves_the_old_backup(
    world: World, config: Config, media: Path
) -> None:
    async with plugging(world, config) as plug_in:
        await plug_in()
        before = originals(plug_in.stick.backups)
        world.script.fail("target.write .in-flight", DiskFull("full"))
        (media / "upload/u1/new.jpg").write_bytes(b"new")
        assert (await plug_in()).outcome is Outcome.FAILED
        assert originals(plug_in.stick.backups) == before
        assert (await plug_in()).outcome is Outcome.OK
