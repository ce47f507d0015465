"""A stick that is plugged in again and again, and what one looks at afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from immich_usb_backup.config import Config
from immich_usb_backup.events import Event
from immich_usb_backup.model import RunReport
from tests.support.fakes import Stick, World
from tests.support.running import Running, daemon_on

FOLDERS = ("upload", "library", "profile")


class Plugging:
    """A stick that is plugged in again and again, with a daemon that goes on."""

    def __init__(self, world: World, running: Running, stick: Stick) -> None:
        self.world = world
        self.running = running
        self.stick = stick

    async def __call__(self) -> RunReport:
        """Plug it in, and wait for the outcome."""
        runs = len(self.world.watchers.reports)
        self.world.log.said.clear()
        if self.stick.seen.plug_in in self.world.devices.plugged:
            self.world.devices.pull(self.stick)
        self.world.devices.plug_again(self.stick)
        await self.running.runs(runs + 1)
        return self.world.watchers.reports[-1]

    @property
    def walked(self) -> bool:
        """Whether the disk was walked in the last run."""
        return Event.DISK_WALKED in self.world.log.events()


@asynccontextmanager
async def plugging(world: World, config: Config, stick: Stick | None = None) -> AsyncIterator[Plugging]:
    stick = stick or world.stick()
    async with daemon_on(world, config) as running:
        yield Plugging(world, running, stick)


def codes(report: RunReport) -> list[str]:
    return [finding.code for finding in report.findings]


def originals(root: Path) -> dict[str, bytes]:
    found = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in found}


def many(media: Path, number: int) -> list[Path]:
    paths = [media / f"upload/u1/aa/{index:03}.jpg" for index in range(number)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return paths


def other_config(config: Config, **changes: object) -> Config:
    return Config.model_validate({**config.model_dump(exclude_none=True, exclude={"mail"}), **changes})
