"""The agent between two real buses: the daemon's signals come in, a recording desktop shows what a person would see."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
from pathlib import Path
from typing import Any

import pytest
from dbus_next import BusType, Message
from dbus_next.aio import MessageBus

from immich_usb_backup.adapters.bus import Bus, variants
from immich_usb_backup.cli import agent as command
from immich_usb_backup.dbus_names import MANAGER, OBJECT_PATH
from immich_usb_backup.events import Event
from tests.integration.buses import (
    NOTIFICATIONS,
    NOTIFICATIONS_PATH,
    RecordingDesktop,
    StandIn,
    hang_up,
    until,
)
from tests.integration.desktop.agents import FAILED, FINISHED, PROGRESS, STARTED, agent_runs, make_agent
from tests.support import host
from tests.support.telling import Recorder


@pytest.mark.usefixtures("agent")
async def test_started_progress_done_in_one_place_and_gone_when_unplugged(
    daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.emit("RunStarted", **STARTED)
    await until(lambda: len(screen.calls) == 1)
    assert screen.only.summary == STARTED["headline"]
    assert (screen.only.hints["urgency"], screen.only.timeout) == (1, 0)
    assert "value" not in screen.only.hints
    daemon.emit("RunProgress", **PROGRESS, percent=50, line="copying photos (library), 50 %")
    await until(lambda: len(screen.calls) == 2)
    assert screen.only.body == "copying photos (library), 50 %"
    assert screen.only.hints["value"] == 50
    assert screen.only.hints["urgency"] == 0
    assert screen.only.signatures == {
        "urgency": "y",
        "value": "i",
        "category": "s",
        "desktop-entry": "s",
        "resident": "b",
        "transient": "b",
    }
    daemon.emit("RunFinished", **FINISHED)
    await until(lambda: len(screen.calls) == 3)
    assert screen.only.summary == "'Blue' is backed up: safe to unplug"
    assert screen.only.body == "12 files &lt;copied&gt; &amp; checked.\nThe database is fresh."
    assert screen.only.hints["urgency"] == 1
    assert "value" not in screen.only.hints
    daemon.emit("DiskRemoved", uuid="OTHER", disk="Other")
    await asyncio.sleep(0.1)
    assert screen.visible
    daemon.emit("DiskRemoved", uuid="1234-ABCD", disk="Blue")
    await until(lambda: not screen.visible)


@pytest.mark.usefixtures("agent")
async def test_progress_is_limited_in_rate_and_says_nothing_twice(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunStarted", **STARTED)
    for percent in range(50):
        daemon.emit("RunProgress", **PROGRESS, percent=percent, line=f"{percent} %")
        await asyncio.sleep(0.01)
    await until(lambda: screen.only.body == "49 %")
    assert len(screen.calls) <= 6, "0.5 s and one in 0.2 s"
    calls = len(screen.calls)
    for _ in range(5):
        daemon.emit("RunProgress", **PROGRESS, percent=49, line="49 %")
        await asyncio.sleep(0.1)
    assert len(screen.calls) == calls


@pytest.mark.usefixtures("agent")
async def test_unknown_progress_has_no_bar(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunStarted", **STARTED)
    daemon.emit("RunProgress", **PROGRESS, percent=-1, line="preparing")
    await until(lambda: bool(screen.visible) and screen.only.body == "preparing")
    assert "value" not in screen.only.hints


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize("outcome", ["failed", "partial", "interrupted"])
async def test_what_is_not_good_stays_until_the_next_run(
    outcome: str, daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.emit("RunStarted", **STARTED)
    daemon.emit("RunFinished", **FAILED | {"outcome": outcome})
    await until(lambda: FAILED["headline"] in screen.summaries())
    assert screen.only.hints["urgency"] == 2
    assert screen.only.body.startswith("Use another disk.\n"), "what to do comes first"
    daemon.emit("DiskRemoved", uuid="1234-ABCD", disk="Blue")
    daemon.emit("RunStarted", run="r2", disk="Green", headline="Green")
    await until(lambda: "Green" in screen.summaries())
    assert FAILED["headline"] in screen.summaries(), "another disk's run changes nothing"
    daemon.emit("RunFinished", **FINISHED | {"run": "r2", "disk": "Green", "uuid": "G", "shown": False})
    daemon.emit("RunStarted", **STARTED | {"run": "r3", "headline": "again"})
    await until(lambda: screen.summaries() == ["again"])


@pytest.mark.usefixtures("agent")
async def test_an_outcome_that_is_not_wanted_only_takes_progress_away(
    daemon: StandIn, screen: RecordingDesktop
) -> None:
    daemon.emit("RunStarted", **STARTED)
    await until(lambda: bool(screen.visible))
    daemon.emit("RunFinished", **FINISHED | {"shown": False})
    await until(lambda: not screen.visible)


@pytest.mark.usefixtures("agent")
async def test_closed_progress_stays_closed_and_the_outcome_comes(daemon: StandIn, screen: RecordingDesktop) -> None:
    daemon.emit("RunStarted", **STARTED)
    await until(lambda: bool(screen.visible))
    screen.dismiss(next(iter(screen.visible)))
    await asyncio.sleep(0.1)
    for percent in (1, 2, 3):
        daemon.emit("RunProgress", **PROGRESS, percent=percent, line=f"{percent} %")
        await asyncio.sleep(0.15)
    assert not screen.visible
    daemon.emit("RunFinished", **FAILED)
    await until(lambda: bool(screen.visible))
    assert (screen.only.summary, screen.only.replaces) == (FAILED["headline"], 0)
    screen.dismiss(next(iter(screen.visible)))
    await asyncio.sleep(0.3)
    assert not screen.visible


async def test_the_daemon_dies_in_mid_run(log: Recorder, screen: RecordingDesktop) -> None:
    daemon = StandIn()
    await daemon.start()
    async with agent_runs(log) as task:
        daemon.emit("RunStarted", **STARTED)
        await until(lambda: bool(screen.visible))
        await daemon.stop()
        await until(lambda: screen.summaries() == ["Backup to 'Blue' stopped"])
        assert screen.only.hints["urgency"] == 2
        assert not task.done()
        await daemon.start()
        daemon.emit("RunFinished", **FAILED | {"outcome": "interrupted", "headline": "interrupted"})
        await until(lambda: screen.summaries() == ["interrupted"])
    await daemon.stop()


async def test_a_run_that_is_under_way_is_shown(log: Recorder, screen: RecordingDesktop) -> None:
    state = {"running": True, **STARTED, **PROGRESS, "percent": 30, "line": "30 %"}
    daemon = StandIn(state)
    async with agent_runs(log):
        await daemon.start()  # a service that starts later, and has something to tell
        await until(lambda: bool(screen.visible))
        assert (screen.only.body, screen.only.hints["value"]) == ("30 %", 30)
        daemon.emit("RunFinished", **FINISHED)
        await until(lambda: screen.summaries() == [FINISHED["headline"]])
    log.said.clear()
    async with agent_runs(log):  # an agent that starts later
        await until(lambda: any(shown.body == "30 %" for shown in screen.visible.values()))
    await daemon.stop()


async def test_progress_does_not_hang_when_the_agent_ends(
    log: Recorder, daemon: StandIn, screen: RecordingDesktop
) -> None:
    async with agent_runs(log):
        daemon.emit("RunStarted", **STARTED)
        await until(lambda: bool(screen.visible))
    assert not screen.visible


async def test_progress_that_is_not_wanted(log: Recorder, daemon: StandIn, screen: RecordingDesktop) -> None:
    async with agent_runs(log, progress=False):
        daemon.emit("RunStarted", **STARTED)
        daemon.emit("RunProgress", **PROGRESS, percent=1, line="1 %")
        daemon.emit("RunFinished", **FINISHED)
        await until(lambda: bool(screen.visible))
        assert [shown.summary for shown in screen.calls] == [FINISHED["headline"]]


# Who is believed ------------------------------------------------------------------------------------------


def _forged(member: str, values: dict[str, Any], destination: str | None) -> Message:
    message = Message.new_signal(OBJECT_PATH, MANAGER, member, "a{sv}", [variants(values)])
    message.destination = destination  # type: ignore[assignment]  # it may be None
    return message


@pytest.mark.parametrize("directly", [False, True])
async def test_only_the_owner_of_the_name_is_believed(
    directly: bool, log: Recorder, daemon: StandIn, screen: RecordingDesktop
) -> None:
    """A signal to the agent's own connection passes every match rule: its sender has to be looked at."""
    system, session = await Bus.system(), await Bus.session()
    task = asyncio.create_task(make_agent(system, session, log).run())
    await until(lambda: Event.AGENT_READY in log.events())
    stranger = await MessageBus(bus_type=BusType.SYSTEM).connect()
    destination = system._connection.unique_name if directly else None
    await stranger.send(_forged("RunFinished", FINISHED | {"headline": "Lies: unplug it now"}, destination))
    owner_gone = Message.new_signal(
        "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged", "sss", ["x", ":1.1", ""]
    )
    owner_gone.destination = destination  # type: ignore[assignment]
    owner_gone.body = ["io.github.immich_usb_backup1", ":1.1", stranger.unique_name]
    await stranger.send(owner_gone)
    await stranger.send(_forged("RunFinished", FINISHED | {"headline": "Lies again"}, destination))
    await asyncio.sleep(0.2)
    assert screen.calls == []
    daemon.emit("RunFinished", **FINISHED)
    await until(lambda: bool(screen.calls))
    assert screen.only.summary == FINISHED["headline"]
    await hang_up(stranger)
    task.cancel()
    await asyncio.wait({task})
    await session.close()
    await system.close()


@pytest.mark.usefixtures("agent")
async def test_values_of_the_wrong_kind_do_no_harm(
    daemon: StandIn, screen: RecordingDesktop, agent: asyncio.Task[None]
) -> None:
    daemon.emit("RunStarted", run=1, disk=2)
    daemon.emit("RunProgress", percent="x", run=["a"])
    daemon.emit("RunFinished", shown="no")
    daemon.emit("Unknown")
    assert daemon.bus is not None
    daemon.bus.emit(OBJECT_PATH, MANAGER, "RunStarted", "s", ["x"])
    daemon.emit("RunFinished", **FINISHED)
    await until(lambda: FINISHED["headline"] in screen.summaries())
    assert not agent.done()


# The desktop ----------------------------------------------------------------------------------------------


async def test_a_desktop_that_shows_nothing_beside_a_bar_gets_none(log: Recorder, daemon: StandIn) -> None:
    """As seen with xfce4-notifyd 0.7: how far it is stands in the text."""
    screen = RecordingDesktop(name="Xfce Notify Daemon")
    await screen.start()
    async with agent_runs(log):
        daemon.emit("RunStarted", **STARTED)
        daemon.emit("RunProgress", **PROGRESS, percent=50, line="50 %")
        await until(lambda: bool(screen.visible) and screen.only.body == "50 %")
        assert "value" not in screen.only.hints
    await screen.stop()


async def test_markup_is_escaped_only_where_it_would_be_read(log: Recorder, daemon: StandIn) -> None:
    screen = RecordingDesktop(capabilities=("body",))
    await screen.start()
    async with agent_runs(log):
        daemon.emit("RunFinished", **FINISHED)
        await until(lambda: bool(screen.visible))
        assert screen.only.body.startswith("12 files <copied> & checked.")
    await screen.stop()


async def test_a_desktop_that_starts_anew_gets_what_still_holds(log: Recorder, daemon: StandIn) -> None:
    first, second = RecordingDesktop(), RecordingDesktop(first_id=100)
    await first.start()
    async with agent_runs(log) as task:
        daemon.emit("RunStarted", **STARTED)
        await until(lambda: bool(first.visible))
        await first.stop()
        daemon.emit("RunProgress", **PROGRESS, percent=10, line="10 %")
        await until(lambda: Event.DELIVERY_FAILED in log.events())
        await second.start()
        await until(lambda: bool(second.visible))
        assert (second.only.body, second.only.replaces) == ("10 %", 0), "an old id may be somebody else's now"
        daemon.emit("RunFinished", **FINISHED)
        await until(lambda: second.summaries() == [FINISHED["headline"]])
        assert second.only.replaces == 100
        assert not task.done()
    assert log.events().count(Event.DELIVERY_FAILED) == 1
    await second.stop()


async def test_a_desktop_that_is_replaced_at_once(log: Recorder, daemon: StandIn) -> None:
    first, second = RecordingDesktop(), RecordingDesktop(first_id=100)
    await first.start()
    async with agent_runs(log):
        daemon.emit("RunFinished", **FAILED)
        await until(lambda: bool(first.visible))
        await second.start()  # takes the name over
        await until(lambda: second.summaries() == [FAILED["headline"]])
        assert second.only.replaces == 0
    await second.stop()
    await first.stop()


async def test_no_desktop_is_no_crash_and_the_outcome_comes_later(log: Recorder, daemon: StandIn) -> None:
    async with agent_runs(log) as task:
        daemon.emit("RunStarted", **STARTED)
        daemon.emit("RunFinished", **FAILED)
        await until(lambda: Event.DELIVERY_FAILED in log.events())
        await asyncio.sleep(0.5)
        assert not task.done()
        assert log.events().count(Event.DELIVERY_FAILED) == 1, "said once, tried for ever"
        screen = RecordingDesktop()
        await screen.start()
        await until(lambda: screen.summaries() == [FAILED["headline"]])
    await screen.stop()


async def test_a_stranger_cannot_close_a_note(log: Recorder, daemon: StandIn, screen: RecordingDesktop) -> None:
    async with agent_runs(log):
        daemon.emit("RunStarted", **STARTED)
        await until(lambda: bool(screen.visible))
        stranger = await MessageBus(bus_type=BusType.SESSION).connect()
        note_id = next(iter(screen.visible))
        closed = Message.new_signal(NOTIFICATIONS_PATH, NOTIFICATIONS, "NotificationClosed", "uu", [note_id, 2])
        await stranger.send(closed)
        daemon.emit("RunProgress", **PROGRESS, percent=10, line="10 %")
        await until(lambda: screen.only.body == "10 %")
        await hang_up(stranger)


# The command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", ["DBUS_SYSTEM_BUS_ADDRESS", "DBUS_SESSION_BUS_ADDRESS"])
async def test_the_command_fails_when_a_bus_is_lost(
    lost: str, monkeypatch: pytest.MonkeyPatch, log: Recorder, tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "make_log", lambda **_: log)
    args = argparse.Namespace(config=tmp_path / "missing.toml")
    with contextlib.ExitStack() as stack:
        bus = await asyncio.to_thread(stack.enter_context, host.session_bus())
        monkeypatch.setenv(lost, bus.address)
        running = asyncio.create_task(command.serve(args))
        await until(lambda: Event.AGENT_READY in log.events())
        await asyncio.to_thread(stack.close)
    assert await asyncio.wait_for(running, 5) == 1
    assert log.events()[-1] is Event.FATAL


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_the_command_fails_without_a_bus(monkeypatch: pytest.MonkeyPatch, log: Recorder, tmp_path: Path) -> None:
    monkeypatch.setattr(command, "make_log", lambda **_: log)
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", f"unix:path={tmp_path}/nothing")
    assert await command.serve(argparse.Namespace(config=tmp_path / "missing.toml")) == 1
    gc.collect()  # dbus-next leaves the socket that it could not connect
