"""The page is written at the end of a run, tells of that run, costs little, and does not make the next run walk the disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest
from tests.support.fakes import FakeAssetBook, Stick, World, partition_of
from tests.support.telling import make_report
from tests.unit.conftest import DUMP_NAME

from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, DeadlineMissed, DiskFull, FlushFailed, StateDamaged
from immich_usb_backup.model import DiskVerdict, Finding, Outcome, Restorable, Severity
from immich_usb_backup.policy.disk_state import STATE
from immich_usb_backup.policy.page import PAGE
from immich_usb_backup.policy.readme_text import README, readme
from immich_usb_backup.policy.report import identify
from immich_usb_backup.stages.books import Books
from immich_usb_backup.stages.config_files import back_up_config
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.database import back_up_database
from immich_usb_backup.stages.mirror import mirror
from immich_usb_backup.stages.page import write_page


@asynccontextmanager
async def a_run(world: World, config: Config, stick: Stick) -> AsyncIterator[Work]:
    """A run up to where the page is written; what follows it comes when the caller is done."""
    if stick.seen.plug_in not in world.devices.plugged:
        world.devices.plug(stick)
    mount = await world.disks.mount(partition_of(stick), read_only=False)
    run = RunContext(
        run_id=f"run-{len(world.script.steps)}",
        disk=identify(stick.seen, mount.partition, "Blue"),
        started=world.ports.clock.now(),
        config=config,
        ports=world.ports,
    )
    target, books = await world.targets.open(mount, marker_entry=None), Books()
    try:
        work = await books.open(run, target)
        run.stages += [await back_up_database(work), await back_up_config(work)]
        await mirror(work, run.stages.append)
        await _settle(work, books)
        yield work
        await _settle(work, books)
    finally:
        await books.close()
        await target.close()


async def _settle(work: Work, books: Books) -> None:
    await work.target.flush(lambda _: None)
    await books.write_manifest()
    await books.settle()


def shown(stick: Stick) -> str:
    """What the page on the disk tells, on one line."""
    text = (stick.backups / PAGE).read_text()
    body = ET.fromstring(text.partition("\n")[2]).find("body")
    assert body is not None
    return " ".join("".join(body.itertext()).split())


def wrote(world: World, since: int) -> list[str]:
    return [step for step in world.script.steps[since:] if step.startswith("target.write")]


async def test_the_page_tells_of_the_run_and_of_what_lies_there(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        work.run.verdict = DiskVerdict(restorable=Restorable.YES, dump=DUMP_NAME, assets=2, present=2)
        await write_page(work)
    text = shown(stick)
    assert "server nas on the disk Blue" in text
    assert "Everything can be restored from this disk 2 of 2 photos" in text
    assert "complete; 8 files copied" in text
    assert "6 files, 11 B" in text
    assert f"database/{DUMP_NAME} (" in text
    assert json.loads((stick.backups / STATE).read_text())["writing"] is False
    assert (stick.backups / README).read_bytes() == readme()


async def test_its_checksums_are_those_of_the_files(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    (archive,) = (stick.backups / "config").iterdir()
    for path in (stick.backups / "database" / DUMP_NAME, archive):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in shown(stick)


async def test_a_run_with_nothing_to_do_says_that_it_was(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    before = (stick.backups / PAGE).read_text()
    world.ports.clock.move_on(minutes=20)  # type: ignore[attr-defined]
    since = len(world.script.steps)
    async with a_run(world, config, stick) as work:
        await write_page(work)
    assert (stick.backups / PAGE).read_text() != before
    assert "complete; nothing new had to be copied" in shown(stick)
    assert wrote(world, since) == ["target.write ."] * 3  # state, page, state: the readme is as it was


async def test_the_next_run_does_not_walk_for_it(world: World, config: Config) -> None:
    stick = world.stick()
    for _ in range(3):
        async with a_run(world, config, stick) as work:
            await write_page(work)
    assert work.believed, work.walk_because


async def test_a_page_that_somebody_changed_is_made_new(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    (stick.backups / PAGE).write_text("<script>")
    (stick.backups / README).unlink()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    assert "<script>" not in (stick.backups / PAGE).read_text()
    assert (stick.backups / README).read_bytes() == readme()


async def test_no_secret_of_the_configuration_is_on_it(world: World, config: Config) -> None:
    stick = world.stick()
    mail = {
        "host": "smtp.example.org",
        "from": "me@example.org",
        "to": ["you@example.org"],
        "username": "me@example.org",
    }
    settings = {**config.model_dump(exclude_none=True, by_alias=True), "mail": mail}
    pictures = config.media_location.with_name("My Secret Pictures")
    pictures.mkdir()
    (pictures / "a.jpg").write_bytes(b"a")
    settings["extra"] = {"pictures": str(pictures)}
    whole = Config.model_validate(settings)
    missing = Finding(
        code="x",
        severity=Severity.PARTIAL,
        message=f"No dump in {config.dumps} and {config.config_files[0]} is unreadable for me@example.org, {pictures}",
    )
    async with a_run(world, whole, stick) as work:
        work.run.note(missing)
        await write_page(work)
    told = (stick.backups / PAGE).read_text()
    for secret in (config.media_location, *config.config_files, "example.org", "smtp", world.state, "Secret"):
        assert str(secret) not in told, secret
    assert "extra/NAME/" in told
    assert "Further folders of the server: pictures" in shown(stick)


async def test_the_strip_has_the_earlier_runs_of_this_disk(world: World, config: Config) -> None:
    stick = world.stick()
    report = make_report("old", outcome=Outcome.INTERRUPTED)
    disk = replace(report.disk, uuid=stick.seen.uuid)
    world.history.finished = {"old": replace(report, disk=disk), "other": make_report("other", outcome=Outcome.FAILED)}
    async with a_run(world, config, stick) as work:
        await write_page(work)
    assert "The last 2 backups" in shown(stick)
    assert "interrupted ✓" in shown(stick)
    assert "failed" not in shown(stick)


@pytest.mark.parametrize("problem", [StateDamaged("the history cannot be used"), DeadlineMissed("it takes too long")])
async def test_without_a_history_the_page_is_written_all_the_same(
    world: World, config: Config, problem: BackupError
) -> None:
    stick = world.stick()

    async def damaged(_: int) -> None:
        raise problem

    async with a_run(world, config, stick) as work:
        world.history.runs = damaged  # type: ignore[method-assign, assignment]
        await write_page(work)
    assert "The first backup" in shown(stick)


async def test_without_a_new_dump_the_newest_on_the_disk_is_named(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    (config.dumps / DUMP_NAME).unlink()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    assert f"gzip --test database/{DUMP_NAME}" in shown(stick)
    assert "No good database dump was found in" in shown(stick)


async def test_the_kind_of_the_dump_is_asked_of_the_dump(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        book = FakeAssetBook(())
        book.facts = replace(book.facts, cluster=True)
        work.assets = book
        await write_page(work)
    assert "This one is of the second kind" in shown(stick)


async def test_a_dump_that_somebody_removed_is_not_listed(world: World, config: Config) -> None:
    stick = world.stick()
    old = DUMP_NAME.replace("20261120", "20261101")
    (config.dumps / old).write_bytes((config.dumps / DUMP_NAME).read_bytes())
    newest = (config.dumps / DUMP_NAME).rename(config.dumps / "later")
    async with a_run(world, config, stick) as work:
        await write_page(work)
    newest.rename(config.dumps / DUMP_NAME)
    async with a_run(world, config, stick) as work:
        await write_page(work)
    assert old in shown(stick)
    (stick.backups / "database" / old).unlink()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    assert old not in shown(stick)


async def test_what_did_not_reach_the_medium_is_not_told(world: World, config: Config) -> None:
    stick = world.stick()

    async def run() -> None:
        async with a_run(world, config, stick) as work:
            work.copied = True
            world.script.fail("target.flush", FlushFailed("the data was lost"))
            await write_page(work)

    with pytest.raises(FlushFailed):
        await run()
    assert not (stick.backups / PAGE).exists()


async def test_a_full_disk_keeps_its_old_page_and_says_so(world: World, config: Config) -> None:
    stick = world.stick()
    async with a_run(world, config, stick) as work:
        await write_page(work)
    before = (stick.backups / PAGE).read_text()
    world.ports.clock.move_on(minutes=20)  # type: ignore[attr-defined]
    async with a_run(world, config, stick) as work:
        world.script.fail("target.write .", DiskFull("no room"))
        await write_page(work)
    assert [(finding.code, finding.severity) for finding in work.run.findings] == [("page-not-written", Severity.NOTE)]
    assert (stick.backups / PAGE).read_text() == before
