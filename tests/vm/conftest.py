"""Fixtures of the VM tests: one guest for all of them, with this project installed in it as a user would.

Every test in this folder gets the marker `vm` and runs in the session's event loop, as the guest does.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from .backup import Backup, without_daemon
from .guest import Guest
from .installing import installed_image
from .journal import Journal

RUNNING = pytest.StashKey[Guest]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.vm)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def guest(request: pytest.FixtureRequest) -> AsyncIterator[Guest]:
    """A booted guest, the same for all tests, with this project and without a configuration for it; its logs go to `$IMMICH_USB_BACKUP_VM_LOGS` at the end."""
    image = await asyncio.to_thread(installed_image)
    async with Guest(image) as running:
        request.config.stash[RUNNING] = running
        yield running
        await running.pull_all()
        if logs := os.environ.get("IMMICH_USB_BACKUP_VM_LOGS"):
            await running.save_logs(Path(logs))
        del request.config.stash[RUNNING]


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _no_disk_left_behind(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Pull what a test left plugged in."""
    yield
    running = request.config.stash.get(RUNNING, None)
    if running is not None:
        await running.pull_all()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def no_daemon(guest: Guest) -> AsyncIterator[None]:
    """Nobody takes the sticks of a whole file of tests."""
    async with without_daemon(guest):
        yield


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(guest: Guest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Backup]:
    """The guest with Immich's files and our service running."""
    async with Journal(guest).followed() as journal:
        backup = Backup(guest, journal)
        await backup.set_up(tmp_path_factory.mktemp("server"))
        yield backup


@pytest_asyncio.fixture(loop_scope="session")
async def backup(server: Backup, request: pytest.FixtureRequest) -> Backup:
    """The service, idle, with the library as it was. Tests with the mark ``mail`` get it without memories, as a user has it:
    it sends mail, and waits for automounters."""
    if "mail" in request.keywords:
        await server.start_over()
    else:
        await server.ready()
    return server
