"""Two private buses for the tests of the desktop messages, and who is on them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.buses import RecordingDesktop, StandIn
from tests.integration.desktop.agents import agent_runs
from tests.support import host
from tests.support.telling import Recorder


@pytest.fixture(scope="package")
def session_bus() -> Iterator[host.Bus]:
    with host.session_bus() as session:
        yield session


@pytest.fixture(scope="package")
def addresses(session_bus: host.Bus) -> Iterator[dict[str, str]]:
    with host.system_bus(private=True) as system:
        yield {system.variable: system.address, session_bus.variable: session_bus.address}


@pytest.fixture(autouse=True)
def on_these_buses(addresses: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable, address in addresses.items():
        monkeypatch.setenv(variable, address)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))


@pytest.fixture
def log() -> Recorder:
    return Recorder()


@pytest.fixture
async def screen() -> AsyncIterator[RecordingDesktop]:
    screen = RecordingDesktop()
    await screen.start()
    yield screen
    await screen.stop()


@pytest.fixture
async def daemon() -> AsyncIterator[StandIn]:
    daemon = StandIn()
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def agent(log: Recorder, daemon: StandIn, screen: RecordingDesktop) -> AsyncIterator[asyncio.Task[None]]:
    async with agent_runs(log) as task:
        yield task
