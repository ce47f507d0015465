"""Who sees the messages, and what somebody is told who comes back: real buses, a stand-in for logind, a real state file."""

from __future__ import annotations

import argparse
import asyncio
import grp
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.adapters.shown import ShownOnDesktop
from immich_usb_backup.cli import agent as command
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome
from tests.integration.buses import RecordingDesktop, StandIn, StandInLogin, until
from tests.integration.desktop.agents import FAILED, FINISHED, PROGRESS, STARTED, agent_runs
from tests.support.telling import NOON, Recorder

YESTERDAY = int(NOON.timestamp()) - 86400
PAST: dict[str, Any] = {
    "Run": "r1",
    "Disk": "1234-ABCD",
    "Name": "Blue",
    "Started": YESTERDAY - 600,
    "Ended": YESTERDAY,
    "Outcome": "ok",
    "SafeToUnplug": True,
    "Headline": "'Blue' is backed up: safe to unplug",
    "Verdict": "Everything comes back.",
}
HERE = {"Uuid": "1234-ABCD", "Name": "Blue", "Device": "/dev/sdb1"}
AWAY = "'Blue' was backed up while you were away: safe to unplug"


@pytest.fixture
def seen(tmp_path: Path, log: Recorder) -> ShownOnDesktop:
    return ShownOnDesktop(tmp_path / "state", log)


@pytest.fixture
def past(daemon: StandIn) -> StandIn:
    daemon.history, daemon.disks = [PAST], [HERE]
    return daemon


@pytest.fixture
async def login() -> AsyncIterator[StandInLogin]:
    login = StandInLogin(active=False)
    await login.start()
    yield login
    await login.stop()


async def _everything_is_heard(screen: RecordingDesktop, daemon: StandIn) -> None:
    """The agent works in order: what it adds while the first of these is shown, it shows before the second."""
    for notice in ("nearly", "the end"):
        daemon.emit("Notice", notice=notice, kind=notice, headline=notice)
        await until(lambda notice=notice: notice in screen.summaries())  # type: ignore[misc]


async def _switched(login: StandInLogin, *, active: bool) -> None:
    """The agent asks again only when it has read the answer before."""
    before = login.asked
    for more in (1, 2):
        login.switch(active=active)
        while login.asked < before + more:
            await asyncio.sleep(0.01)


# What was missed ------------------------------------------------------------------------------------------


async def test_what_happened_meanwhile_is_told_once(
    log: Recorder, past: StandIn, screen: RecordingDesktop, seen: ShownOnDesktop, tmp_path: Path
) -> None:
    async with agent_runs(log, seen=seen):
        await until(lambda: screen.summaries() == [AWAY])
        assert (screen.only.body, screen.only.hints["urgency"]) == ("Everything comes back.", 1)
        await until((tmp_path / "state/shown.json").exists)
    screen.visible.clear()
    log.said.clear()
    async with agent_runs(log, seen=ShownOnDesktop(tmp_path / "state", log)):
        await _everything_is_heard(screen, past)
        assert screen.summaries() == ["nearly", "the end"]


async def test_what_was_shown_as_it_happened_is_not_told_again(
    log: Recorder, daemon: StandIn, screen: RecordingDesktop, seen: ShownOnDesktop, tmp_path: Path
) -> None:
    async with agent_runs(log, seen=seen):
        daemon.emit("RunFinished", **FINISHED)
        daemon.emit("RunFinished", **FINISHED | {"run": "g1", "uuid": "GREEN", "disk": "Green", "shown": False})
        file = tmp_path / "state/shown.json"
        await until(lambda: file.exists() and b"g1" in file.read_bytes())
    screen.visible.clear()
    daemon.history = [PAST, PAST | {"Run": "g1", "Disk": "GREEN", "Name": "Green"}]
    log.said.clear()
    async with agent_runs(log, seen=seen):
        await _everything_is_heard(screen, daemon)
        assert screen.summaries() == ["nearly", "the end"]


async def test_the_story_comes_from_the_runs_object(
    log: Recorder, screen: RecordingDesktop, seen: ShownOnDesktop
) -> None:
    daemon = StandIn()
    daemon.history = [PAST | {"Outcome": "failed", "SafeToUnplug": False, "Findings": ["unmount-busy"]}]
    daemon.disks = [HERE]
    daemon.details["r1"] = {"Body": "Another <program> holds it.", "Todo": "Close it."}
    await daemon.start()
    async with agent_runs(log, seen=seen):
        await until(lambda: bool(screen.visible))
        expected = "Backup to 'Blue' failed while you were away: it may still be mounted, do not just unplug it"
        assert screen.only.summary == expected
        assert screen.only.body == "Close it.\nAnother &lt;program&gt; holds it."
        assert (screen.only.hints["urgency"], screen.only.icon) == (2, "dialog-error")
        assert screen.only.buttons == ["Eject"]
    await daemon.stop()


async def test_held_deletions_can_be_approved_by_who_comes_later(
    log: Recorder, past: StandIn, screen: RecordingDesktop, seen: ShownOnDesktop
) -> None:
    past.history = [PAST | {"Outcome": "partial", "Findings": ["deletions-held"]}]
    async with agent_runs(log, seen=seen):
        await until(lambda: bool(screen.visible))
        screen.press("Approve deletions")
        await until(lambda: past.asked == [("Approve", "1234-ABCD")])


async def test_only_wanted_outcomes_are_told(
    log: Recorder, past: StandIn, screen: RecordingDesktop, seen: ShownOnDesktop
) -> None:
    async with agent_runs(log, seen=seen, on=(Outcome.FAILED,)):
        await _everything_is_heard(screen, past)
        assert screen.summaries() == ["nearly", "the end"]


async def test_a_service_that_starts_later_is_asked_then(
    log: Recorder, screen: RecordingDesktop, seen: ShownOnDesktop
) -> None:
    daemon = StandIn()
    daemon.history, daemon.disks = [PAST], []
    async with agent_runs(log, seen=seen):
        await daemon.start()
        await until(lambda: screen.summaries() == ["'Blue' was backed up while you were away"])
    await daemon.stop()


async def test_the_disk_that_is_being_backed_up_to_tells_its_own_end(
    log: Recorder, screen: RecordingDesktop, seen: ShownOnDesktop
) -> None:
    daemon = StandIn({"running": True, **STARTED, **PROGRESS, "run": "r2", "line": "30 %", "percent": 30})
    daemon.history, daemon.disks = [PAST], [HERE]
    await daemon.start()
    async with agent_runs(log, seen=seen):
        await _everything_is_heard(screen, daemon)
        assert AWAY not in screen.summaries()
    await daemon.stop()


async def test_what_cannot_be_remembered_is_shown_and_said(
    log: Recorder, past: StandIn, screen: RecordingDesktop, tmp_path: Path
) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    async with agent_runs(log, seen=ShownOnDesktop(tmp_path / "state", log)):
        await until(lambda: screen.summaries() == [AWAY])
        past.emit("RunFinished", **FAILED | {"run": "r2"})
        await until(lambda: screen.summaries() == [FAILED["headline"]])
    assert log.events().count(Event.SHOWN_FORGOTTEN) == 1


@pytest.mark.parametrize(
    "content", [b"{", b'{"version": 2, "shown": {}}', b"[]", b'{"version": 1, "shown": 5}', b"\xff"]
)
async def test_a_damaged_state_file_is_begun_anew(content: bytes, tmp_path: Path, log: Recorder) -> None:
    (tmp_path / "shown.json").write_bytes(content)
    seen = ShownOnDesktop(tmp_path, log)
    assert await seen.newest() == {}
    await seen.note("U", "r1")
    assert log.events() == [Event.SHOWN_FORGOTTEN]
    assert await ShownOnDesktop(tmp_path, log).newest() == {"U": "r1"}


# Who sees it ----------------------------------------------------------------------------------------------


async def test_nothing_is_shown_while_somebody_else_sits_there(
    log: Recorder, past: StandIn, screen: RecordingDesktop, login: StandInLogin, seen: ShownOnDesktop
) -> None:
    past.history = []
    async with agent_runs(log, seen=seen, quiet=True):
        past.emit("RunStarted", **STARTED)
        past.emit("RunProgress", **PROGRESS, percent=1, line="1 %")
        past.emit("RunFinished", **FINISHED)
        past.emit("RunStarted", **STARTED | {"run": "g1", "disk": "Green", "uuid": "GREEN", "headline": "Green"})
        past.history = [PAST]
        login.switch(active=True)
        await until(lambda: screen.summaries() == [AWAY, "Green"])
        assert len(screen.calls) == 2, "nothing was shown before"
        await _switched(login, active=False)
        past.emit("RunFinished", **FAILED | {"run": "g1", "disk": "Green", "uuid": "GREEN"})
        past.history.append(PAST | {"Run": "g1", "Disk": "GREEN", "Name": "Green", "Outcome": "failed"})
        login.switch(active=True)
        await until(lambda: screen.summaries() == [AWAY, "Backup to 'Green' failed while you were away"])


async def test_who_is_always_told_does_not_sit_there(
    log: Recorder, past: StandIn, screen: RecordingDesktop, login: StandInLogin, seen: ShownOnDesktop
) -> None:
    async with agent_runs(log, seen=seen):
        await until(lambda: screen.summaries() == [AWAY])


async def test_another_change_of_the_session_changes_nothing(
    log: Recorder, past: StandIn, screen: RecordingDesktop, login: StandInLogin, seen: ShownOnDesktop
) -> None:
    async with agent_runs(log, seen=seen, quiet=True):
        past.emit("RunFinished", **FINISHED)
        login.switch(active=False)
        await until(lambda: login.asked >= 2)
        assert screen.calls == []


@pytest.mark.parametrize("display", [True, False])
async def test_where_nobody_knows_who_sits_there_it_is_shown(
    display: bool, log: Recorder, past: StandIn, screen: RecordingDesktop, seen: ShownOnDesktop
) -> None:
    """No logind, or one that knows of no display."""
    login = StandInLogin(active=False, display=False)
    if not display:
        await login.start()
    async with agent_runs(log, seen=seen, quiet=True):
        await until(lambda: screen.summaries() == [AWAY])
    await login.stop()


async def test_a_new_logind_is_asked_again(
    log: Recorder, past: StandIn, screen: RecordingDesktop, login: StandInLogin, seen: ShownOnDesktop
) -> None:
    async with agent_runs(log, seen=seen, quiet=True):
        await until(lambda: login.asked >= 1)
        login.active = True
        await login.stop()
        await login.start()
        await until(lambda: screen.summaries() == [AWAY])


# The command ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("member", [True, False])
async def test_members_of_the_group_are_told_wherever_they_are(
    member: bool,
    monkeypatch: pytest.MonkeyPatch,
    log: Recorder,
    past: StandIn,
    screen: RecordingDesktop,
    login: StandInLogin,
    tmp_path: Path,
) -> None:
    own = grp.getgrgid(os.getgid()).gr_name
    (tmp_path / "config.toml").write_text(f'[desktop]\ngroup = "{own if member else "no-such-group"}"\n')
    past.history = [PAST | {"Ended": int(time.time()) - 60}]
    monkeypatch.setattr(command, "make_log", lambda **_: log)
    running = asyncio.create_task(command.serve(argparse.Namespace(config=tmp_path / "config.toml")))
    await until(lambda: bool(screen.visible) if member else login.asked > 0)
    if not member:
        login.switch(active=False)  # asked once more: what came before it has been seen to
        await until(lambda: login.asked > 1)
    if member:
        await until((tmp_path / "shown.json").exists)
    assert screen.summaries() == ([AWAY] if member else [])
    os.kill(os.getpid(), signal.SIGTERM)
    assert await running == 0
    assert (tmp_path / "shown.json").exists() is member
