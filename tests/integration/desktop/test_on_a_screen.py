"""A real notification daemon on a virtual screen: what the agent says is drawn, moves, and can be pressed.

Each picture is left in pytest's temporary folder, as PNG.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from immich_usb_backup.adapters.bus import Bus
from tests.integration.buses import NOTIFICATIONS, NOTIFICATIONS_PATH, StandIn, until
from tests.integration.desktop.agents import FAILED, FINISHED, PROGRESS, STARTED, agent_runs
from tests.integration.desktop.pictures import (
    BACKGROUNDS,
    BAR,
    BAR_WIDTH,
    Picture,
    VirtualScreen,
    dunst,
    virtual_screen,
)
from tests.support import host
from tests.support.needs import cannot_run
from tests.support.telling import Recorder

LINE = "copying photos (library), {percent} %, 31.0 MB in a second, about 20 min left"


@pytest.fixture(scope="module")
def display(session_bus: host.Bus) -> Iterator[VirtualScreen]:
    if missing := [program for program in ("Xvfb", "dunst") if host.find_program(program) is None]:
        cannot_run(f"{' and '.join(missing)} not installed")
    with virtual_screen() as display, dunst(display, session_bus):
        yield display


class Eyes:
    """Somebody in front of the screen."""

    def __init__(self, display: VirtualScreen, album: Path) -> None:
        self._display = display
        self._album = album

    async def see(self, name: str, expected: Callable[[Picture], bool]) -> Picture:
        """Look until it is so, with a deadline; the last look is kept under this name."""
        try:
            async with asyncio.timeout(10):
                while not expected(picture := await asyncio.to_thread(self._display.picture)):
                    await asyncio.sleep(0.02)
        finally:
            self._display.picture().save(self._album / f"{name}.png")
        return picture


@pytest.fixture
async def eyes(log: Recorder, daemon: StandIn, display: VirtualScreen, tmp_path: Path) -> AsyncIterator[Eyes]:
    """In front of an agent that works."""
    async with agent_runs(log, progress_seconds=0.0):
        yield Eyes(display, tmp_path)


def _drawn(level: str) -> Callable[[Picture], bool]:
    return lambda picture: picture.count(BACKGROUNDS[level]) > 10_000


async def test_the_bar_grows_and_the_outcome_takes_its_place(daemon: StandIn, eyes: Eyes) -> None:
    daemon.emit("RunStarted", **STARTED)
    await eyes.see("started", _drawn("normal"))
    for percent in (25, 75):
        daemon.emit("RunProgress", **PROGRESS, percent=percent, line=LINE.format(percent=percent))
        wide = BAR_WIDTH * percent // 100
        await eyes.see(f"progress {percent}", lambda picture, wide=wide: abs(picture.longest(BAR) - wide) <= 10)  # type: ignore[misc]
    daemon.emit("RunFinished", **FINISHED)
    done = await eyes.see("done", _drawn("normal"))
    assert done.count(BAR) == done.count(BACKGROUNDS["low"]) == 0, "one note, and no bar"
    daemon.emit("DiskRemoved", uuid=STARTED["uuid"], disk="Blue")
    await eyes.see("unplugged", lambda picture: picture.count(BACKGROUNDS["normal"]) == 0)


async def test_a_button_is_pressed_on_a_real_desktop(daemon: StandIn, eyes: Eyes) -> None:
    """What dunst closes as its button is pressed comes back with the answer."""
    mounted = {"safe_to_unplug": False, "body": "<b>Another</b> program & its friends hold the disk."}
    headline = {"headline": "Backup to 'Blue' failed: it may still be mounted, do not just unplug it"}
    daemon.emit("RunFinished", **FAILED | mounted | headline)
    failed = await eyes.see("failed", _drawn("critical"))
    session = await Bus.session()
    await session.call(NOTIFICATIONS, NOTIFICATIONS_PATH, "org.dunstproject.cmd0", "NotificationAction", "u", [0])
    await session.close()
    await until(lambda: daemon.asked == [("Eject", STARTED["uuid"])])
    shorter = failed.count(BACKGROUNDS["critical"])
    await eyes.see("ejected", lambda picture: 10_000 < picture.count(BACKGROUNDS["critical"]) < shorter)
    daemon.emit("RunStarted", **STARTED | {"run": "r2"})
    await eyes.see("again", lambda picture: picture.count(BACKGROUNDS["critical"]) == 0)
