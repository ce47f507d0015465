"""An agent between two private buses: a stand-in for the daemon on one, a desktop that remembers on the other."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.daemon_calls import DaemonCalls
from immich_usb_backup.adapters.desktop import Desktop
from immich_usb_backup.adapters.manager import ManagerOnBus
from immich_usb_backup.adapters.seat import LoginSeat
from immich_usb_backup.agent.agent import Agent
from immich_usb_backup.events import Event
from tests.integration.buses import until
from tests.support.telling import Recorder, SetClock

STARTED = {
    "run": "r1",
    "disk": "Blue",
    "uuid": "1234-ABCD",
    "headline": "Backing up to 'Blue': please leave it plugged in",
}
PROGRESS = {"run": "r1", "disk": "Blue", "stage": "library", "done": 5, "total": 10}
FINISHED = {
    "run": "r1",
    "disk": "Blue",
    "uuid": "1234-ABCD",
    "outcome": "ok",
    "safe_to_unplug": True,
    "headline": "'Blue' is backed up: safe to unplug",
    "body": "12 files <copied> & checked.\nThe database is fresh.",
    "todo": "",
    "shown": True,
}
FAILED = FINISHED | {
    "outcome": "failed",
    "headline": "Backup to 'Blue' failed: safe to unplug",
    "todo": "Use another disk.",
}


class Remembered:
    """Implements ``agent.ports.Seen`` for as long as a test lasts."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}

    async def newest(self) -> Mapping[str, str]:
        return self.shown

    async def note(self, uuid: str, run_id: str) -> None:
        self.shown[uuid] = run_id


def make_agent(system: Bus, session: Bus, log: Recorder, **options: Any) -> Agent:
    options = {"progress_seconds": 0.2, "retry_seconds": 0.2} | options
    seen, clock = options.pop("seen", None) or Remembered(), options.pop("clock", None) or SetClock()
    if options.pop("quiet", False):
        options["seat"] = LoginSeat(system, os.getuid())
    return Agent(ManagerOnBus(system), DaemonCalls(system), Desktop(session), seen, clock, log, **options)


@contextlib.asynccontextmanager
async def agent_runs(log: Recorder, **options: Any) -> AsyncIterator[asyncio.Task[None]]:
    system, session = await Bus.system(), await Bus.session()
    task = asyncio.create_task(make_agent(system, session, log, **options).run())
    try:
        await until(lambda: Event.AGENT_READY in log.events() or task.done())
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})
        await session.close()
        await system.close()
