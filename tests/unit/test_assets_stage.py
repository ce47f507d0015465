"""The stage that opens the dump's assets: what it asks for, and what a run says where they cannot be read."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from tests.support.fakes import FakeAssetBook, World

from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, DeadlineMissed, DumpUnusable, SourceUnreadable, StateDamaged
from immich_usb_backup.model import Disk, Severity
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.manifest import DiskRecord
from immich_usb_backup.ports import Ports, Target
from immich_usb_backup.stages.assets import open_assets
from immich_usb_backup.stages.books import Books
from immich_usb_backup.stages.context import RunContext, Work

DUMP = "immich-db-backup-20261120T020000-v2.5.2-pg14.19.sql.gz"
SHA256 = "ab" * 32


class _Books:
    """Remembers what it was asked for; fails as it is told."""

    def __init__(self, error: BackupError | None = None) -> None:
        self.error = error
        self.asked: list[tuple[Path, str, Path]] = []
        self.book = FakeAssetBook([Asset(b"upload/1.jpg", bytes(20))])

    async def open(self, dump: Path, *, sha256: str, media_location: Path) -> FakeAssetBook:
        self.asked.append((dump, sha256, media_location))
        if self.error is not None:
            raise self.error
        return self.book


Prepare = Callable[[Ports], Awaitable[Work]]


@pytest.fixture
async def prepare(world: World, config: Config) -> AsyncIterator[Prepare]:
    """Makes a run's work on a disk; its manifest is closed in the end."""
    made: list[Work] = []

    async def prepare(ports: Ports) -> Work:
        made.append(await _work(world, config, ports))
        return made[-1]

    yield prepare
    for work in made:
        await work.manifest.close()


async def _work(world: World, config: Config, ports: Ports) -> Work:
    disk = Disk(name="Blue", label="BLUE", uuid="1234", serial="", model="", size=10**12, device_node="")
    run = RunContext(run_id="r", disk=disk, started=world.ports.clock.now(), config=config, ports=ports, dump=DUMP)
    manifest = await world.manifests.open(disk.uuid)
    record = DiskRecord(proofs={f"database/{DUMP}": (7, SHA256)})
    return Work(
        run=run,
        target=cast(Target, None),
        manifest=manifest,
        server_id="s",
        state=None,
        generation="",
        record=record,
        walk_because=(),
    )


async def test_the_assets_of_the_dump_on_the_disk_are_opened(world: World, config: Config, prepare: Prepare) -> None:
    books = _Books()
    work = await prepare(replace(world.ports, asset_books=books))
    await open_assets(work)
    assert work.assets is books.book
    assert books.asked == [(config.dumps / DUMP, SHA256, config.media_location)]
    assert work.run.findings == []


async def test_a_dump_that_was_made_for_this_run_is_read_where_it_was_made(world: World, prepare: Prepare) -> None:
    books = _Books()
    work = await prepare(replace(world.ports, asset_books=books))
    work.run.dump_path = Path("/run/fresh.sql.gz")
    await open_assets(work)
    assert [path for path, _, _ in books.asked] == [Path("/run/fresh.sql.gz")]


async def test_without_a_dump_there_is_nothing_to_open_and_nothing_more_to_say(world: World, prepare: Prepare) -> None:
    books = _Books()
    work = await prepare(replace(world.ports, asset_books=books))
    work.run.dump = None
    await open_assets(work)
    assert (work.assets, books.asked, work.run.findings) == (None, [], [])


@pytest.mark.parametrize("kind", [DumpUnusable, SourceUnreadable, StateDamaged, DeadlineMissed])
async def test_assets_that_cannot_be_read_make_the_run_partial_and_do_not_end_it(
    world: World, prepare: Prepare, kind: type[BackupError]
) -> None:
    books = _Books(kind("dump.sql.gz: it is no dump"))
    work = await prepare(replace(world.ports, asset_books=books))
    await open_assets(work)
    (finding,) = work.run.findings
    assert work.assets is None
    assert (finding.code, finding.severity) == (kind.code, Severity.PARTIAL)
    assert finding.message.startswith("dump.sql.gz: it is no dump. The files are backed up all the same")


@pytest.mark.parametrize("cut_off", [False, True])
async def test_the_assets_are_closed_with_the_books(
    world: World, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, *, cut_off: bool
) -> None:
    source = _Books()
    work = await prepare(replace(world.ports, asset_books=source))

    async def opened(*_: object, **__: object) -> Work:
        return work

    monkeypatch.setattr("immich_usb_backup.stages.books.open_disk", opened)
    await work.manifest.close()
    books = Books()
    await open_assets(await books.open(work.run, work.target))
    if cut_off:
        books.leave_open()
    await books.close()
    assert source.book.closed
