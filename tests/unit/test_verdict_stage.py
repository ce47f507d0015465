"""The stage: a dump's list, a real manifest and a server's files brought together."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
from tests.support.fakes import FakeAssetBook, World
from tests.support.telling import make_report

from immich_usb_backup.adapters.asset_book import SqliteAssetBooks
from immich_usb_backup.adapters.threads import Threads
from immich_usb_backup.config import Config
from immich_usb_backup.errors import StateDamaged
from immich_usb_backup.events import Event
from immich_usb_backup.model import DiskVerdict, PlugIn, Restorable, Severity
from immich_usb_backup.policy import verdict as policy
from immich_usb_backup.policy.assets import Asset
from immich_usb_backup.policy.manifest import Change, DiskRecord, Known
from immich_usb_backup.ports import Target
from immich_usb_backup.stages.context import RunContext, Work
from immich_usb_backup.stages.verdict import judge

DISK = make_report().disk
ONE, TWO = b"upload/u1/aa/bb/1.jpg", b"library/admin/2026/2.jpg"
PROVEN = int(datetime(2026, 3, 3, 12, tzinfo=UTC).timestamp())


def digest(path: bytes) -> bytes:
    return hashlib.sha1(path, usedforsecurity=False).digest()


def asset(path: bytes, **facts: Any) -> Asset:
    return Asset(path, digest(path), **facts)


@pytest.fixture
async def work(world: World, config: Config, media: Path) -> AsyncIterator[Work]:
    """Both photos of the library lie on the disk, proven, and the dump names them."""
    manifest = await world.manifests.open(DISK.uuid)
    run = RunContext(run_id="r", disk=DISK, started=world.ports.clock.now(), config=config, ports=world.ports)
    run.dump, run.dump_time = "new.sql.gz", datetime(2026, 11, 21, 2, tzinfo=UTC)
    work = Work(
        run=run,
        target=cast(Target, None),
        manifest=manifest,
        server_id="s",
        state=None,
        generation="",
        record=DiskRecord(),
        walk_because=(),
        assets=FakeAssetBook([asset(ONE), asset(TWO)]),
    )
    await on_disk(work, ONE, TWO)
    yield work
    await manifest.close()


async def on_disk(work: Work, *paths: bytes, content: bytes | None = None) -> None:
    def line(path: bytes) -> Known:
        name = path.rpartition(b"/")[2]
        return Known(name, name, 3, 1, digest=digest(content or path), proven=PROVEN)

    await work.manifest.apply([Change(path, line(path)) for path in paths])


async def off_disk(work: Work, *paths: bytes) -> None:
    await work.manifest.apply([Change(path, None) for path in paths])


def the_dump_names(work: Work, *assets: Asset, media_location: bytes = b"/data") -> None:
    book = FakeAssetBook(assets)
    book.facts = replace(book.facts, media_location=media_location)
    work.assets = book


def codes(work: Work) -> list[str]:
    return [finding.code for finding in work.run.findings]


async def test_a_disk_that_has_everything(work: Work, world: World) -> None:
    found = await judge(work)
    assert (found.restorable, found.assets, found.present, found.proven) == (Restorable.YES, 2, 2, 2)
    assert (found.files, found.files_proven, found.oldest_proof) == (2, 2, datetime(2026, 3, 3, 12, tzinfo=UTC))
    assert (found.dump, found.immich) == ("new.sql.gz", "2.5.0")
    assert work.run.verdict is found
    assert codes(work) == []
    event, fields = world.log.said[-1]
    assert event is Event.VERDICT
    assert fields["message"].startswith("2 of 2 photos in the dump of ")
    assert (fields["restorable"], fields["assets"], fields["present"], fields["missing"]) == ("yes", 2, 2, 0)


async def test_what_the_server_has_is_missing_on_the_disk(work: Work) -> None:
    await off_disk(work, ONE)
    found = await judge(work)
    assert (found.present, found.missing, found.missing_on_server) == (1, 1, 0)
    assert found.exceptions == ("upload/u1/aa/bb/1.jpg: not on the disk",)
    assert codes(work) == ["photos-missing"]


async def test_what_the_server_lacks_too_is_gone(work: Work, media: Path) -> None:
    await off_disk(work, ONE)
    (media / ONE.decode()).unlink()
    found = await judge(work)
    assert (found.missing, found.missing_on_server) == (1, 1)
    assert codes(work) == ["photos-gone"]
    assert work.run.findings[0].severity is Severity.NOTE


async def test_what_the_template_moved_after_the_dump_is_found_by_its_content(work: Work, media: Path) -> None:
    await off_disk(work, ONE)
    (media / ONE.decode()).unlink()
    await on_disk(work, b"library/admin/moved.jpg", content=ONE)
    found = await judge(work)
    assert (found.present, found.moved, found.missing, found.unknown) == (2, 1, 0, 0)
    assert (found.proven, found.restorable, codes(work)) == (2, Restorable.YES, [])


async def test_anothers_photo_of_the_same_content_is_not_taken_for_it(work: Work) -> None:
    await off_disk(work, ONE)
    the_dump_names(work, asset(ONE), Asset(TWO, digest(ONE)))
    await on_disk(work, TWO, content=ONE)
    found = await judge(work)
    assert (found.present, found.missing, found.moved) == (1, 1, 0)


async def test_a_damaged_file_is_no_place_to_find_a_photo_in(work: Work) -> None:
    await off_disk(work, ONE)
    await on_disk(work, b"library/admin/moved.jpg", content=ONE)
    work.rotten_on_disk = {b"library/admin/moved.jpg"}
    found = await judge(work)
    assert (found.present, found.missing, found.moved) == (1, 1, 0)


async def test_one_file_is_found_for_one_photo(work: Work) -> None:
    await off_disk(work, ONE, TWO)
    the_dump_names(work, asset(ONE), Asset(TWO, digest(ONE)))
    await on_disk(work, b"library/admin/moved.jpg", content=ONE)
    found = await judge(work)
    assert (found.present, found.missing) == (1, 1)


async def test_what_is_left_out_by_a_pattern_is_no_alarm(work: Work) -> None:
    await off_disk(work, ONE, TWO)
    work.run.config = work.run.config.model_copy(update={"exclude": {"upload": ("/u1/aa/",), "library": ("*.jpg",)}})
    found = await judge(work)
    assert (found.missing, found.exception_count, codes(work)) == (2, 2, [])
    assert found.reasons == ("2 photos are left out by the patterns under [exclude]",)


async def test_paths_that_no_file_can_have_are_asked_for_in_vain(work: Work) -> None:
    strange = [b"upload/../../etc/passwd", b"upload/" + b"x" * 300, b"upload/nul\0", b"upload//a", b"y/" * 3000 + b"z"]
    the_dump_names(work, asset(ONE), *map(asset, strange))
    found = await judge(work)
    assert (found.present, found.missing_on_server) == (1, 5)


async def test_a_server_that_answers_with_errors_has_lost_nothing_yet(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise PermissionError

    await off_disk(work, ONE)
    monkeypatch.setattr(type(work.run.ports.source), "facts", broken)
    found = await judge(work)
    assert (found.missing, found.missing_on_server, codes(work)) == (1, 0, ["photos-missing"])


async def test_many_missing_ones_are_looked_for_in_portions(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "MISSING_AT_ONCE", 2)
    assets = [asset(b"upload/u2/%d/%d.jpg" % (number % 4, number)) for number in range(20)]
    the_dump_names(work, asset(ONE), *assets)
    found = await judge(work)
    assert (found.assets, found.present, found.missing_on_server) == (21, 1, 20)
    assert found.unknown == 1, "what the dump does not name"


async def test_rotten_files(work: Work) -> None:
    work.rotten_on_disk = {ONE}
    work.rotten_on_server = {TWO}
    found = await judge(work)
    assert (found.present, found.rotten_on_disk, found.rotten_on_server) == (1, 1, 1)
    assert (found.restorable, found.exception_count) == (Restorable.EXCEPT, 1)
    assert codes(work) == ["rotten-on-disk"]


@pytest.mark.parametrize("dump", ["new.sql.gz", None])
async def test_without_the_list_it_is_a_no(work: Work, dump: str | None) -> None:
    work.assets, work.run.dump, work.rotten_on_disk = None, dump, {ONE}
    found = await judge(work)
    assert (found.restorable, found.files, found.dump) == (Restorable.NO, 2, dump or "")
    assert codes(work) == ["rotten-on-disk"]


async def test_external_libraries(work: Work, media: Path) -> None:
    inside, outside = asset(b"/ext/1/a.jpg", external=True), asset(b"/other/b.jpg", external=True)
    the_dump_names(work, asset(ONE), asset(TWO), inside, outside)
    await on_disk(work, b"extra/pics/1/a.jpg")
    work.run.config = work.run.config.model_copy(update={"extra": {"pics": Path("/srv/pics")}})
    found = await judge(work)
    assert (found.external, found.external_covered, found.extra_folders) == (2, 1, ('extra.other = "/other"',))
    assert found.restorable is Restorable.EXCEPT
    (finding,) = work.run.findings
    assert (finding.code, finding.severity) == ("external-not-covered", Severity.PARTIAL)
    assert "docker-compose.yml" in finding.hint, "/data is not the server's path"


@pytest.mark.parametrize("told", ["", "slash"])
async def test_on_a_server_without_a_container_paths_are_its_own(work: Work, media: Path, told: str) -> None:
    location = b"" if not told else bytes(media) + b"/"
    the_dump_names(work, asset(b"/other/b.jpg", external=True), media_location=location)
    await judge(work)
    assert "docker-compose.yml" not in work.run.findings[0].hint


async def test_a_library_in_the_media_location_is_named_with_the_servers_path(work: Work, media: Path) -> None:
    """Immich says that it is external, and the reader of dumps names it from the media location on."""
    the_dump_names(work, asset(b"pictures/b.jpg", external=True))
    found = await judge(work)
    assert found.extra_folders == (f'extra.pictures = "{media}/pictures"',)
    assert found.exceptions == (f"{media}/pictures/b.jpg: external library",)


async def test_the_real_reader_of_dumps_and_real_threads(work: Work, tmp_path: Path) -> None:
    """Both sides sorted alike, over many portions and threads; names that sort before and after a slash."""
    folders = [b"upload/u1", b"upload/u1-2", b"upload/u1/aa", b"upload/u1.x", b"library/a b/c", b"library/a"]
    names = [b"upload/u1/aa/bb/1.jpg", *(folder + b"/%d.jpg" % n for folder in folders for n in range(3))]
    rows = b"".join(b"/data/%s\t\\\\x%s\tf\t\\N\n" % (name, digest(name).hex().encode()) for name in names)
    head = b"--\n-- PostgreSQL database dump\n--\n\n"
    copy = b'COPY public.asset ("originalPath", checksum, "isExternal", "deletedAt") FROM stdin;\n'
    dump = tmp_path / "dump.sql"
    dump.write_bytes(head + copy + rows + b"\\.\n\n--\n-- PostgreSQL database dump complete\n--\n\n")
    await on_disk(work, *names)
    work.run.ports = replace(work.run.ports, background=Threads())
    books = SqliteAssetBooks(tmp_path / "books")
    sha256 = hashlib.sha256(dump.read_bytes()).hexdigest()
    work.assets = await books.open(dump, sha256=sha256, media_location=work.run.config.media_location)
    found = await judge(work)
    assert (found.assets, found.present, found.proven, found.missing) == (19, 19, 19, 0)
    assert found.unknown == 1, "the photo in library/admin"
    await work.assets.close()


async def test_what_was_said_about_this_disk_is_not_said_loudly_again(work: Work, world: World, media: Path) -> None:
    await off_disk(work, ONE)
    shutil.rmtree(media / "upload/u1")
    for dump, expected in (("1", "photos-gone"), ("2", "photos-lost"), ("3", "photos-lost")):
        work.run.dump, work.run.findings = dump, []
        await judge(work)
        (finding,) = work.run.findings
        assert finding.code == expected
        await remember(world, work, run_id=dump)
        await remember_others(world)
    assert finding.severity is Severity.NOTE


async def remember(world: World, work: Work, *, run_id: str) -> None:
    report = make_report(run_id, findings=tuple(work.run.findings), verdict=work.run.verdict)
    await world.history.begin(report, PlugIn(boot_id="b", disk_sequence=1, device_number=1))
    await world.history.finish(report)


async def remember_others(world: World) -> None:
    """A run on another disk, and one on this that came to no verdict."""
    report = make_report("other")
    verdict = DiskVerdict(restorable=Restorable.YES, dump="another")
    other = replace(report, disk=replace(report.disk, uuid="OTHER"), verdict=verdict)
    for number, one in enumerate((other, make_report("without"))):
        world.history.begun.pop(one.run_id, None)
        world.history.finished.pop(one.run_id, None)
        await world.history.begin(one, PlugIn(boot_id="b", disk_sequence=2 + number, device_number=1))
        await world.history.finish(one)


async def test_a_history_that_cannot_be_read_keeps_no_verdict_back(
    work: Work, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(limit: int) -> Iterable[object]:
        raise StateDamaged("broken")

    monkeypatch.setattr(world.history, "runs", broken)
    assert (await judge(work)).restorable is Restorable.YES
