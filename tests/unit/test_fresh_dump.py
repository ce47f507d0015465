"""A fresh dump for each backup: which dump goes to the disk, and what is said when there is none, or an old one."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.support.fakes import Stick, World
from tests.support.running import daemon_on
from tests.unit.conftest import DUMP_NAME, DUMP_TEXT

from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, BusLost, DeadlineMissed
from immich_usb_backup.messages import outcome_message
from immich_usb_backup.model import Outcome, RunReport, Severity
from immich_usb_backup.policy.dumps import too_old

FRESH = "immich-db-backup-20261121T115900-v2.5.2-pg14.19.sql.gz"
WHOLE = gzip.compress(DUMP_TEXT.encode())
COMMAND = ("docker", "exec", "db", "pg_dump")


def _with(config: Config, **database: object) -> Config:
    return Config.model_validate({**config.model_dump(), "database": database})


def _put(folder: Path, name: str, content: bytes = WHOLE) -> Callable[[], object]:
    def make() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)

    return make


async def _run(world: World, config: Config, stick: Stick | None = None) -> RunReport:
    async with daemon_on(world, config) as running:
        world.devices.plug(stick or world.stick())
        await running.runs(1)
    return world.report


def _codes(report: RunReport) -> list[str]:
    """Without that of every first run."""
    return [finding.code for finding in report.findings if finding.code != "any-marked-disk"]


@pytest.mark.parametrize("mode", ["pg_dump", "command"])
async def test_the_dump_that_is_made_for_the_backup_goes_to_the_disk(world: World, config: Config, mode: str) -> None:
    world.dump_maker.makes = _put(world.dump_maker.folder, FRESH)
    stick = world.stick()
    report = await _run(world, _with(config, mode=mode, command=COMMAND), stick)
    assert (report.outcome, report.dump) == (Outcome.OK, FRESH)
    assert [path.name for path in (stick.backups / "database").glob("*.gz")] == [FRESH]
    assert "made for this backup" in report.stages[0].summary


async def test_a_fresh_dump_goes_though_another_name_is_later(world: World, config: Config, media: Path) -> None:
    """Immich's container may live in another time zone: its names are hours ahead."""
    _put(media / "backups", FRESH.replace("T1159", "T2359"))()
    world.dump_maker.makes = _put(world.dump_maker.folder, FRESH)
    report = await _run(world, _with(config, mode="pg_dump"))
    assert (report.outcome, report.dump) == (Outcome.OK, FRESH)


async def test_immichs_own_new_dump_is_the_fresh_one(world: World, config: Config, media: Path) -> None:
    world.dump_maker.makes = _put(media / "backups", FRESH)
    report = await _run(world, _with(config, mode="immich-api"))
    assert (report.outcome, report.dump) == (Outcome.OK, FRESH)


async def test_nothing_is_made_where_immichs_latest_is_wanted(world: World, config: Config) -> None:
    _put(world.dump_maker.folder, FRESH)()
    report = await _run(world, config)
    assert (report.outcome, report.dump) == (Outcome.OK, DUMP_NAME)
    assert world.dump_maker.asked == []


async def test_the_maker_gets_its_time_and_a_little_more(world: World, config: Config) -> None:
    await _run(world, _with(config, mode="pg_dump", fresh_minutes=7))
    assert world.dump_maker.asked[0] > 7 * 60


@pytest.mark.parametrize("mode", ["pg_dump", "immich-api"])
async def test_without_a_fresh_dump_the_latest_goes_and_the_reason_is_told(
    world: World, config: Config, mode: str
) -> None:
    world.dump_maker.problem = 'pg_dump: error: role "immich" does not exist'
    report = await _run(world, _with(config, mode=mode))
    assert (report.outcome, report.dump, _codes(report)) == (Outcome.PARTIAL, DUMP_NAME, ["fresh-dump-failed"])
    said = outcome_message(report)
    assert 'role "immich" does not exist' in said.text
    assert "of 20 November 2026" in said.text
    assert "systemctl status immich-usb-backup-dump" in " ".join(said.todo)


@pytest.mark.parametrize("error", [DeadlineMissed("it did not end"), BusLost("D-Bus is gone")])
async def test_a_maker_that_cannot_be_asked_is_told_like_one_that_fails(
    world: World, config: Config, error: BackupError
) -> None:
    world.script.fail("dump_maker.make", error)
    report = await _run(world, _with(config, mode="pg_dump"))
    assert (report.dump, _codes(report)) == (DUMP_NAME, ["fresh-dump-failed"])
    assert error.message in report.findings[0].message


async def test_a_success_without_a_new_dump_is_none(world: World, config: Config) -> None:
    _put(world.dump_maker.folder, FRESH)()  # of another day
    report = await _run(world, _with(config, mode="pg_dump"))
    assert (report.outcome, _codes(report)) == (Outcome.PARTIAL, ["fresh-dump-failed"])
    assert report.dump == FRESH


async def test_a_fresh_dump_that_is_damaged_is_not_trusted(world: World, config: Config) -> None:
    world.dump_maker.makes = _put(world.dump_maker.folder, FRESH, WHOLE[:-9])
    report = await _run(world, _with(config, mode="pg_dump"))
    assert (report.outcome, report.dump, _codes(report)) == (Outcome.PARTIAL, DUMP_NAME, ["newer-dump-bad"])


async def test_immichs_folder_need_not_hold_any_dump(world: World, config: Config, media: Path) -> None:
    for path in (media / "backups").iterdir():
        path.unlink()
    (media / "backups").rmdir()
    world.dump_maker.makes = _put(world.dump_maker.folder, FRESH)
    report = await _run(world, _with(config, mode="pg_dump"))
    assert (report.outcome, report.dump) == (Outcome.OK, FRESH)


async def test_without_any_dump_both_reasons_are_told(world: World, config: Config, media: Path) -> None:
    (media / "backups" / DUMP_NAME).unlink()
    world.dump_maker.problem = "nobody listens"
    report = await _run(world, _with(config, mode="pg_dump"))
    assert _codes(report) == ["fresh-dump-failed", "no-good-dump"]
    assert report.findings[0].message == "No fresh database dump could be made (nobody listens)"


async def test_the_reader_of_the_dump_gets_the_fresh_one(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in another folder than Immich's."""
    opened: list[Path] = []
    reader = world.asset_books.open

    async def watched(dump: Path, *, sha256: str, media_location: Path) -> object:
        opened.append(dump)
        return await reader(dump, sha256=sha256, media_location=media_location)

    monkeypatch.setattr(world.asset_books, "open", watched)
    world.dump_maker.makes = _put(world.dump_maker.folder, FRESH)
    await _run(world, _with(config, mode="pg_dump"))
    assert opened == [world.dump_maker.folder / FRESH]


# Age ------------------------------------------------------------------------------------------------------


async def test_an_old_dump_is_said_loudly_each_time(world: World, config: Config, media: Path) -> None:
    (media / "backups" / DUMP_NAME).rename(media / "backups" / DUMP_NAME.replace("20261120", "20261115"))
    stick = world.stick()
    async with daemon_on(world, config) as running:
        for count in (1, 2):
            world.devices.plug_again(stick) if count > 1 else world.devices.plug(stick)
            await running.runs(count)
            assert (world.report.outcome, _codes(world.report)) == (Outcome.PARTIAL, ["dump-old"])
            assert world.report.findings[0].severity is Severity.PARTIAL
            assert "6 days old" in outcome_message(world.report).text
            world.devices.pull(stick)
    assert list((stick.backups / "database").glob("*20261115*"))


async def test_how_old_is_old_can_be_set(world: World, config: Config) -> None:
    """The sample's dump is a day and a half old."""
    report = await _run(world, _with(config, warn_after_hours=24))
    assert _codes(report) == ["dump-old"]
    assert "more than 24 hours" in report.findings[0].message


@pytest.mark.parametrize(
    ("age", "hours", "old"),
    [
        (timedelta(hours=48), 48, False),
        (timedelta(hours=48, seconds=1), 48, True),
        (timedelta(hours=-20), 48, False),
        (timedelta(days=400), 0, False),
    ],
)
def test_the_limit_of_age(age: timedelta, hours: int, old: bool) -> None:
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert too_old(now - age, now, hours=hours) is old
