"""What the tests of enrolled disks and of strangers' share."""

from __future__ import annotations

from immich_usb_backup.config import Config
from immich_usb_backup.events import Event
from immich_usb_backup.policy.marker import ENROLLED_MARKER, decode
from tests.support.fakes import Stick
from tests.support.plugging import other_config
from tests.support.running import Running


def only_enrolled(config: Config) -> Config:
    """The same, for enrolled disks only."""
    return other_config(config, disks={"automounter_grace_seconds": 0, "trust": "enrolled"})


def content(stick: Stick) -> dict[str, bytes]:
    """Every file on it, and every folder."""
    found = {str(path.relative_to(stick.root)): path for path in stick.root.rglob("*")}
    return {name: path.read_bytes() if path.is_file() else b"/" for name, path in found.items()}


async def looked_at(running: Running, stick: Stick) -> None:
    """Plug it in (anew), and let it be looked at."""
    before = running.world.log.events().count(Event.DISK_NOT_TRUSTED) + len(running.world.watchers.reports)
    unmarked = running.world.log.events().count(Event.DISK_UNMARKED)
    if stick.seen.plug_in in running.world.devices.plugged:
        running.world.devices.pull(stick)
    running.world.devices.plug_again(stick)
    log, reports = running.world.log, running.world.watchers.reports
    await running.until(
        lambda: (
            log.events().count(Event.DISK_NOT_TRUSTED) + len(reports) > before
            or log.events().count(Event.DISK_UNMARKED) > unmarked
        )
    )


def secret_on(stick: Stick) -> str:
    return decode((stick.root / ENROLLED_MARKER).read_bytes()).secret
