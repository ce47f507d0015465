"""The live bar in a real terminal: what a person sees on the screen, also when the window becomes narrower."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from immich_usb_backup import dbus_names
from immich_usb_backup.policy.views import RunView
from tests.support import host, told
from tests.support.daemon import DAEMON
from tests.support.needs import cannot_run
from tests.support.standing_in import StandingIn

pytestmark = pytest.mark.skipif(host.find_program("dbus-daemon") is None, reason="there is no dbus-daemon")
APPEARS_WITHIN = 20.0
BAR = re.compile(r"^\[#*-*\] (\d+) %", re.MULTILINE)
GOING = told.going()
GOOD = RunView(
    run=GOING.run, disk=GOING.uuid, name="Blue", outcome="ok", headline="'Blue' is backed up: safe to unplug"
)


class Screen:
    """A terminal of 80 columns and 24 lines."""

    def __init__(self, socket: Path) -> None:
        self._tmux = ("tmux", "-u", "-f", "/dev/null", "-S", str(socket))

    def open(self, command: str, environment: dict[str, str]) -> None:
        """Run a shell command in it."""
        options = ("new-session", "-d", "-x", "80", "-y", "24", command)
        subprocess.run([*self._tmux, *options], env={**os.environ, **environment}, check=True, timeout=30)

    def resize(self, columns: int) -> None:
        """As a person drags the corner of the window."""
        subprocess.run([*self._tmux, "resize-window", "-x", str(columns)], check=True, timeout=30)

    def close(self) -> None:
        """And everything in it."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True, timeout=30)

    def keys(self, *keys: str) -> None:
        """As a person types."""
        subprocess.run([*self._tmux, "send-keys", *keys], check=True, timeout=30)

    async def when(self, met: Callable[[str], object]) -> str:
        """What is on it, as soon as it is so."""
        shown = ""
        try:
            async with asyncio.timeout(APPEARS_WITHIN):
                while True:
                    shown = await asyncio.to_thread(self._shown)
                    if met(shown):
                        return shown
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(shown) from None

    def _shown(self) -> str:
        done = subprocess.run(
            [*self._tmux, "capture-pane", "-p"], capture_output=True, text=True, check=True, timeout=30
        )
        return "\n".join(line.rstrip() for line in done.stdout.rstrip().splitlines())


@pytest.fixture(scope="module")
def bus() -> Iterator[host.Bus]:
    with host.system_bus(private=True) as bus:
        yield bus


@pytest.fixture
async def service(bus: host.Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StandingIn]:
    monkeypatch.setenv(bus.variable, bus.address)
    service = StandingIn()
    service.disks = [told.disk(device="/dev/sdb1", state="running")]
    service.current = "library/admin/2024/家族の写真/写真 01.jpg"
    await service.start()
    yield service
    await service.stop()


@pytest.fixture
def screen(service: StandingIn) -> Iterator[Screen]:
    """With the command in it; afterwards it says how that ended."""
    if shutil.which("tmux") is None:
        cannot_run("there is no tmux: apt-get install tmux")
    with host.temporary_folder() as folder:
        screen = Screen(folder / "tmux")
        program = shlex.join([sys.executable, "-m", "immich_usb_backup", "status", "--follow"])
        screen.open(
            f"trap : INT; {program}; echo ended $?; cat",
            {"PYTHONPATH": str(DAEMON), "LC_ALL": "C.UTF-8"},
        )
        yield screen
        screen.close()


async def test_the_bar_moves_in_its_place(service: StandingIn, screen: Screen) -> None:
    await screen.when(lambda shown: "Waiting for the next backup" in shown)
    service.started(GOING)
    for percent in (12, 48):
        service.progress(replace(GOING, percent=percent))
    shown = await screen.when(lambda shown: "写真 01.jpg" in shown and "] 48 %" in shown)
    assert shown.splitlines()[-4:] == [
        "Backing up to 'Blue': please leave it plugged in",
        "copying photos (upload)",
        "[##########-----------] 48 %, 150.2 GB of 312.0 GB, 98.0 MB/s, 27 min 31 s left",
        service.current,
    ]
    assert BAR.findall(shown) == ["48"]
    service.finished(GOOD)
    shown = await screen.when(lambda shown: "ended" in shown)
    assert shown.splitlines()[-2:] == [GOOD.headline, "ended 0"]
    assert not BAR.search(shown)


async def test_a_window_that_becomes_narrower_shows_one_bar(service: StandingIn, screen: Screen) -> None:
    service.refused = {dbus_names.GET_CURRENT_FILE}
    service.started(GOING)
    service.progress(replace(GOING, percent=12))
    await screen.when(lambda shown: "] 12 %" in shown)
    screen.resize(40)
    service.progress(replace(GOING, percent=48))
    shown = await screen.when(lambda shown: "] 48 %" in shown)
    assert BAR.findall(shown) == ["48"]
    assert shown.count("copying photos (upload)") == 1


async def test_ctrl_c_leaves_what_was_drawn(service: StandingIn, screen: Screen) -> None:
    service.started(GOING)
    service.progress(GOING)
    await screen.when(lambda shown: "] 48 %" in shown)
    screen.keys("C-c")
    shown = await screen.when(lambda shown: "ended 1" in shown)
    assert "] 48 %" in shown
    assert shown.splitlines()[-2:] == ["Only this command has ended; the service goes on.", "ended 1"]
