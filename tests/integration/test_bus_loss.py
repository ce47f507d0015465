"""The bus goes, or does not answer: an error at once, or at the deadline, and never a hang."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.exit_codes import ExitCode
from tests.support import host
from tests.support.daemon import daemon_process
from tests.support.real_disks import connected, environment
from tests.support.serving import ServedMethod, serve

HANGS_AFTER = 20.0
DBUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
ANSWERER = ("org.example.Silent", "/org/example", "org.example.Silent")

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")


@pytest.fixture
def bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus:
        yield bus


async def _kill(bus: host.Bus, connection: Bus) -> None:
    """End the dbus-daemon, as when the machine shuts down in the wrong order."""
    (pid,) = await connection.call(*DBUS, "GetConnectionUnixProcessID", "s", ["org.freedesktop.DBus"])
    os.kill(int(pid), signal.SIGKILL)


async def _serve_silence(connection: Bus) -> asyncio.Event:
    """A service that takes a call and never answers. The event tells that it has one."""
    called = asyncio.Event()

    async def never() -> tuple[()]:
        called.set()
        await asyncio.Event().wait()
        return ()

    serve(connection, ANSWERER[1], ANSWERER[2], {"Never": ServedMethod("", "", never)})
    await connection.request_name(ANSWERER[0])
    return called


async def test_a_bus_that_goes_during_a_call_is_an_error_at_once(bus: host.Bus) -> None:
    async with asyncio.timeout(HANGS_AFTER), connected(bus) as server, connected(bus) as client:
        called = await _serve_silence(server)
        call = asyncio.ensure_future(client.call(*ANSWERER, "Never", timeout=3600))
        await called.wait()
        await _kill(bus, server)
        with pytest.raises(BusLost, match="Never"):
            await call
        await client.wait_lost()
        assert not client.connected


async def test_a_call_after_the_loss_is_refused(bus: host.Bus) -> None:
    async with asyncio.timeout(HANGS_AFTER), connected(bus) as client:
        await _kill(bus, client)
        await client.wait_lost()
        with pytest.raises(BusLost):
            await client.call(*DBUS, "ListNames")
        client.emit("/org/example", "org.example.X", "Gone", "", [])


async def test_a_call_without_an_answer_misses_its_deadline_and_the_bus_still_works(bus: host.Bus) -> None:
    async with asyncio.timeout(HANGS_AFTER), connected(bus) as server, connected(bus) as client:
        await _serve_silence(server)
        with pytest.raises(DeadlineMissed, match="Never did not answer"):
            await client.call(*ANSWERER, "Never", timeout=0.1)
        (names,) = await client.call(*DBUS, "ListNames")
        assert ANSWERER[0] in names


async def test_a_service_that_is_not_there_is_the_other_sides_error(bus: host.Bus) -> None:
    async with asyncio.timeout(HANGS_AFTER), connected(bus) as client:
        with pytest.raises(BusCallFailed) as failed:
            await client.call("org.example.Nobody", "/", "org.example.X", "Y")
        assert failed.value.name == "org.freedesktop.DBus.Error.ServiceUnknown"


async def test_a_name_that_somebody_has_is_refused(bus: host.Bus) -> None:
    async with asyncio.timeout(HANGS_AFTER), connected(bus) as first, connected(bus) as second:
        await first.request_name("org.example.One")
        with pytest.raises(BusCallFailed, match="taken"):
            await second.request_name("org.example.One")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_without_a_bus_connecting_says_so() -> None:
    """dbus-next leaves the socket that it could not connect to the garbage collector."""
    with environment("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/socket"), pytest.raises(BusLost) as refused:
        await Bus.system()
    assert "cannot be reached" in refused.value.message
    refused.value.__cause__ = refused.value.__context__ = None
    del refused
    gc.collect()


@pytest.mark.host
@pytest.mark.skipif(host.unavailable() is not None, reason=str(host.unavailable()))
async def test_the_daemon_ends_with_an_error_so_that_systemd_starts_it_again(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'media_location = "{tmp_path}"\n')
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(host.in_thread(host.system_bus(private=True)))
        await stack.enter_async_context(host.in_thread(host.udev()))
        await stack.enter_async_context(host.in_thread(host.udisks(bus)))
        connection = await stack.enter_async_context(connected(bus))
        running = daemon_process(config, tmp_path / "state", environment={bus.variable: bus.address})
        daemon = await stack.enter_async_context(running)
        await _kill(bus, connection)
        async with asyncio.timeout(HANGS_AFTER):
            assert await daemon.process.wait() == ExitCode.UNAVAILABLE
