"""The examples in CONTRIBUTING.md, run: a stage in a whole run on fakes, a channel in the notifier's loop."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.support.fakes import World
from tests.support.running import HANGS_AFTER, daemon_on
from tests.support.telling import Recorder, SetClock, make_report
from tests.unit.test_delivery import FakeLedger, FakeOutbox

from immich_usb_backup import run
from immich_usb_backup.config import Config
from immich_usb_backup.model import Outcome
from immich_usb_backup.notifier import NotifierPorts, deliver_all
from immich_usb_backup.policy.delivery import Waiting
from immich_usb_backup.policy.news import Ended

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = (CHECKOUT / "CONTRIBUTING.md").read_text()


BLOCKS = [textwrap.dedent(block) for block in re.findall(r"(?ms)^ *```python\n(.*?)^ *```$", PAGE)]
PLACES = {"leave_a_line": "stages/about.py", "class Display": "adapters/display.py"}


def _example(name: str) -> Mapping[str, Any]:
    """What the block defines that has ``name`` in it. A new member of ``Stage`` cannot be had here: another one is it."""
    (text,) = (block for block in BLOCKS if name in block)
    found: dict[str, Any] = {}
    exec(compile(text.replace("Stage.ABOUT", "Stage.CONFIG"), name, "exec"), found)
    return found


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("options", [("check",), ("format", "--check")], ids=" ".join)
def test_the_linter_has_nothing_to_say_of_them(name: str, options: tuple[str, ...]) -> None:
    (text,) = (block for block in BLOCKS if name in block)
    place = f"daemon/immich_usb_backup/{PLACES[name]}"
    command = [sys.executable, "-m", "ruff", *options, "--no-cache", "--stdin-filename", place, "-"]
    done = subprocess.run(command, cwd=CHECKOUT, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def test_the_stage_writes_its_file_and_says_so(
    world: World, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "back_up_config", _example("leave_a_line")["leave_a_line"])
    stick = world.stick()
    async with daemon_on(world, config) as running:
        world.devices.plug(stick)
        await running.runs(1)
        assert "A line about the server: written and read back (4 B)" in world.log.lines()
        world.devices.pull(stick)
        steps = len(world.script.steps)
        world.devices.plug_again(stick)
        await running.runs(2)
    assert world.report.outcome is Outcome.OK
    assert (stick.backups / "config/about.txt").read_text() == "nas\n"
    assert "A line about the server: there" in world.log.lines()
    assert "target.write config" not in world.script.steps[steps:]


async def _deliver(file: Path) -> None:
    news = {outcome.value: Ended(report=make_report(outcome.value, outcome=outcome)) for outcome in Outcome}
    entries = [Waiting(name=name, news=one) for name, one in news.items()]
    display = _example("class Display")["Display"](file, [Outcome.FAILED, Outcome.PARTIAL])
    ports = NotifierPorts(
        outbox=FakeOutbox(*entries), ledger=FakeLedger(), couriers=(display,), log=Recorder(), clock=SetClock()
    )
    async with asyncio.timeout(HANGS_AFTER):
        await deliver_all(ports, stop=asyncio.Event())


async def test_the_channel_shows_what_it_wants_once(tmp_path: Path) -> None:
    await _deliver(tmp_path / "display")
    lines = (tmp_path / "display").read_text().splitlines()
    assert len(lines) == 2
    assert {("failed" in line) for line in lines} == {True, False}
