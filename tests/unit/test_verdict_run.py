"""The verdict of a whole run: in the report, the journal and the messages, and true to what lies on the disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.support.fakes import World
from tests.support.running import daemon_on

from immich_usb_backup import messages
from immich_usb_backup.config import Config
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome, Restorable, Severity
from immich_usb_backup.policy.assets import Asset

ONE, TWO = b"upload/u1/aa/bb/1.jpg", b"library/admin/2026/2.jpg"


def uploaded(media: Path, path: bytes) -> Asset:
    return Asset(path, hashlib.sha1((media / path.decode()).read_bytes(), usedforsecurity=False).digest())


async def test_what_was_copied_and_read_back_is_all_there(world: World, config: Config, media: Path) -> None:
    world.asset_books.assets = [uploaded(media, ONE), uploaded(media, TWO)]
    async with daemon_on(world, config) as running:
        world.devices.plug(world.stick())
        await running.runs(1)
    verdict = world.report.verdict
    assert verdict is not None
    assert (verdict.restorable, verdict.assets, verdict.present, verdict.proven) == (Restorable.YES, 2, 2, 2)
    assert (verdict.unknown, verdict.files_proven) == (0, verdict.files)
    line = next(line for line in world.log.lines() if "photos in the dump of" in line)
    assert line.startswith("2 of 2 photos in the dump of 20 November 2026, 02:00 are on 'STICK1'; all re-read since ")
    assert line in messages.outcome_message(world.report).lines
    events = world.log.events()
    assert events.index(Event.VERDICT) < events.index(Event.STAGE_DONE, events.index(Event.VERDICT))


async def test_a_photo_that_is_lost_on_the_server_is_loud_when_a_later_dump_still_has_it(
    world: World, config: Config, media: Path
) -> None:
    world.asset_books.assets = [uploaded(media, ONE), Asset(b"upload/u1/lost.jpg", b"x" * 20)]
    dump = next((media / "backups").glob("*.gz"))
    stick, heard = world.stick(), []
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        for number in range(1, 4):
            await running.runs(number)
            findings = [f for f in world.report.findings if f.code in {"photos-gone", "photos-lost"}]
            heard.append([(finding.code, finding.severity) for finding in findings])
            assert world.report.verdict is not None
            assert world.report.verdict.exceptions == ("upload/u1/lost.jpg: neither on the disk nor on the server",)
            later = dump.with_name(dump.name.replace("20261120", f"2026112{number}").replace("T02", f"T0{2 + number}"))
            later.write_bytes(dump.read_bytes())
            if number < 3:
                world.devices.pull(stick)
                world.devices.plug_again(stick)
    gone, lost, told = heard
    assert (gone, lost) == ([("photos-gone", Severity.NOTE)], [("photos-lost", Severity.PARTIAL)])
    assert told == [("photos-lost", Severity.NOTE)]
    assert world.outcomes[1] is Outcome.PARTIAL
