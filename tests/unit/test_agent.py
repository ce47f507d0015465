"""The agent's races, which real buses show too seldom: answers that are older than what was heard meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tests.support.telling import Recorder

from immich_usb_backup.agent import Agent
from immich_usb_backup.policy.notes import Note

STARTED = {"run": "r1", "disk": "Blue", "headline": "started"}
FINISHED = {"run": "r1", "disk": "Blue", "uuid": "U", "outcome": "ok", "headline": "finished"}


class FakeManager:
    """A daemon that is there; ``while_asked`` happens between its answer and our reading it."""

    def __init__(self) -> None:
        self.answer: Mapping[str, Any] = {"running": False}
        self.while_asked: Callable[[], None] = lambda: None
        self.signal: Callable[[str, Mapping[str, Any]], None] = lambda member, values: None

    async def watch(
        self, on_signal: Callable[[str, Mapping[str, Any]], None], on_owner: Callable[[bool], None]
    ) -> bool:
        self.signal = on_signal
        return True

    async def state(self) -> Mapping[str, Any]:
        self.while_asked()
        return self.answer


class FakeScreen:
    """A desktop; ``while_shown`` happens between its answer and our reading it."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.while_shown: Callable[[], None] = lambda: None
        self.server: Callable[[bool], None] = lambda there: None

    async def watch(self, on_closed: Callable[[int], None], on_server: Callable[[bool], None]) -> bool:
        self.server = on_server
        return True

    async def show(self, note: Note, *, replaces: int) -> int:
        self.calls.append((note.summary, replaces))
        self.while_shown()
        return 10 + len(self.calls)

    async def withdraw(self, note_id: int) -> None:
        return


async def _for_a_moment(manager: FakeManager, screen: FakeScreen, then: Callable[[], None] = lambda: None) -> None:
    task = asyncio.create_task(Agent(manager, screen, Recorder(), progress_seconds=0.01, retry_seconds=0.01).run())
    await asyncio.sleep(0.05)
    then()
    await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.wait({task})


async def test_a_state_that_is_older_than_the_end_of_the_run_is_not_believed() -> None:
    manager, screen = FakeManager(), FakeScreen()
    manager.answer = {"running": True, **STARTED}
    manager.while_asked = lambda: manager.signal("RunFinished", FINISHED)
    await _for_a_moment(manager, screen)
    assert screen.calls == [("finished", 0)]


async def test_an_id_of_a_server_that_died_meanwhile_is_not_used_again() -> None:
    manager, screen = FakeManager(), FakeScreen()

    def die() -> None:
        screen.while_shown = lambda: None
        screen.server(False)
        screen.server(True)

    screen.while_shown = die
    await _for_a_moment(manager, screen, lambda: manager.signal("RunStarted", STARTED))
    assert screen.calls == [("started", 0), ("started", 0)]


async def test_progress_of_a_run_whose_start_was_missed_asks_for_it() -> None:
    manager, screen = FakeManager(), FakeScreen()

    def progress() -> None:
        manager.answer = {"running": True, **STARTED}
        manager.signal("RunProgress", {"run": "r1", "disk": "Blue", "line": "1 %", "percent": 1})

    await _for_a_moment(manager, screen, progress)
    assert screen.calls == [("started", 0)]
