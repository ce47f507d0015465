"""The daemon on fakes, in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from immich_usb_backup.config import Config
from immich_usb_backup.daemon import Daemon
from immich_usb_backup.errors import ConfigError
from tests.support.fakes import World

HANGS_AFTER = 20.0  # seconds; only a broken daemon takes as long


class Running:
    """A daemon that is ready. ``new_config`` is what a reload finds."""

    def __init__(self, world: World, config: Config, **options: Any) -> None:
        self.world = world
        self.new_config: Config | ConfigError = config
        self.bus_lost = asyncio.Event()
        self._ready = asyncio.Event()
        self.daemon = Daemon(config, world.ports, reload=self._reload, bus_lost=self._lost, **options)
        self.task = asyncio.ensure_future(self.daemon.run(ready=self._ready.set))

    def _reload(self) -> Config:
        if isinstance(self.new_config, ConfigError):
            raise self.new_config
        return self.new_config

    async def _lost(self) -> None:
        await self.bus_lost.wait()

    async def ready(self) -> None:
        """Plugging in is noticed from now on."""
        waiting = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({self.task, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    async def until(self, met: Callable[[], bool]) -> None:
        """Wait, by the fakes' news, until it is so, and until the daemon has drawn its conclusions."""
        try:
            async with asyncio.timeout(HANGS_AFTER):
                while not met():
                    assert not self.task.done(), self.task
                    await self._news()
        except TimeoutError:
            raise AssertionError(f"not so: {self.world.script.steps[-5:]} {self.world.log.lines()}") from None
        await quiet()

    async def _news(self) -> None:
        self.world.script.news.clear()
        waiting = asyncio.ensure_future(self.world.script.news.wait())
        try:
            await asyncio.wait({waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def runs(self, number: int) -> None:
        """Wait for the end of so many runs."""
        await self.until(lambda: len(self.world.watchers.reports) >= number)

    async def reached(self, step: str) -> None:
        """Wait until a held step is reached."""
        async with asyncio.timeout(HANGS_AFTER):
            await self.world.script.reached(step)

    async def ended(self) -> None:
        """Wait until it has ended by itself."""
        async with asyncio.timeout(HANGS_AFTER):
            await asyncio.wait({self.task})


@asynccontextmanager
async def daemon_on(world: World, config: Config, **options: Any) -> AsyncIterator[Running]:
    """Ready; stopped at the end, and what it raised comes out."""
    running = Running(world, config, **options)
    await running.ready()
    try:
        yield running
    finally:
        running.daemon.stop()
        async with asyncio.timeout(HANGS_AFTER):
            await asyncio.wait({running.task})
    running.task.result()


async def quiet() -> None:
    """Let everything run that can run without waiting for anything."""
    for _ in range(30):
        await asyncio.sleep(0)
