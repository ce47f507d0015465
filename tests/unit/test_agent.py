"""The agent's races, which real buses show too seldom: answers that are older than what was heard meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tests.support.telling import Recorder, SetClock

from immich_usb_backup.agent.agent import Agent
from immich_usb_backup.policy.note_words import Action
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
        self.closed: Callable[[int], None] = lambda note_id: None
        self.action: Callable[[int, str], None] = lambda note_id, action: None
        self.bodies: list[str] = []
        self.withdrawn: list[int] = []
        self.answers_after = 0.0

    async def watch(
        self,
        on_closed: Callable[[int], None],
        on_server: Callable[[bool], None],
        on_action: Callable[[int, str], None],
    ) -> bool:
        self.server, self.closed, self.action = on_server, on_closed, on_action
        return True

    async def show(self, note: Note, *, replaces: int) -> int:
        self.calls.append((note.summary, replaces))
        self.bodies.append(note.body)
        self.while_shown()
        await asyncio.sleep(self.answers_after)
        return 10 + len(self.calls)

    async def withdraw(self, note_id: int) -> None:
        self.withdrawn.append(note_id)


class FakeService:
    """A daemon that answers when it is told to, and has no history."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()

    async def ask(self, action: Action, disk: str) -> object:
        return await self.answer

    async def history(self) -> Sequence[Mapping[str, Any]]:
        return ()

    async def disks(self) -> Sequence[Mapping[str, Any]]:
        return ()

    async def details(self, run_id: str) -> Mapping[str, Any]:
        return {}


class Noted:
    """Implements ``agent.ports.Seen``, and tells what was noted."""

    def __init__(self) -> None:
        self.runs: list[str] = []

    async def newest(self) -> Mapping[str, str]:
        return {}

    async def note(self, uuid: str, run_id: str) -> None:
        self.runs.append(run_id)


async def _for_a_moment(
    manager: FakeManager,
    screen: FakeScreen,
    then: Callable[[], None] = lambda: None,
    *,
    service: FakeService | None = None,
    seen: Noted | None = None,
) -> None:
    parts = (manager, service or FakeService(), screen, seen or Noted(), SetClock(), Recorder())
    task = asyncio.create_task(Agent(*parts, progress_seconds=0.01, retry_seconds=0.01).run())
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


async def test_a_notice_that_comes_meanwhile_makes_no_state_older() -> None:
    manager, screen = FakeManager(), FakeScreen()
    manager.answer = {"running": True, **STARTED}
    manager.while_asked = lambda: manager.signal("Notice", {"kind": "reminder", "headline": "a notice"})
    await _for_a_moment(manager, screen)
    assert sorted(screen.calls) == [("a notice", 0), ("started", 0)]


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


async def test_an_answer_that_comes_after_the_end_of_the_run_says_nothing_about_it() -> None:
    """Eject, pressed while the disk is read back, answers after the run that it ended."""
    manager, screen, service = FakeManager(), FakeScreen(), FakeService()
    manager.answer = {"running": True, **STARTED}

    def press() -> None:
        screen.action(11, "cancel")
        manager.signal("RunFinished", FINISHED)
        service.answer.set_result("Blue")

    await _for_a_moment(manager, screen, press, service=service)
    assert screen.calls == [("started", 0), ("finished", 11)]
    assert screen.bodies[-1] == ""


async def test_a_button_that_is_pressed_twice_asks_once() -> None:
    manager, screen, service = FakeManager(), FakeScreen(), FakeService()
    manager.answer = {"running": True, **STARTED}

    def press() -> None:
        screen.action(11, "cancel")
        screen.action(11, "cancel")
        service.answer.set_result("Blue")

    asked: list[Action] = []
    real = service.ask

    async def ask(action: Action, disk: str) -> object:
        asked.append(action)
        return await real(action, disk)

    service.ask = ask  # type: ignore[method-assign]
    await _for_a_moment(manager, screen, press, service=service)
    assert asked == [Action.CANCEL]
    assert screen.bodies[-1].startswith("The backup to 'Blue' is being stopped")


async def test_an_outcome_that_comes_while_the_progress_is_being_closed_is_shown() -> None:
    manager, screen = FakeManager(), FakeScreen()
    manager.answer = {"running": True, **STARTED}

    def close() -> None:
        manager.signal("RunFinished", FINISHED)
        screen.closed(11)

    await _for_a_moment(manager, screen, close)
    assert screen.calls == [("started", 0), ("finished", 0)]


async def test_an_outcome_that_was_closed_stays_closed() -> None:
    manager, screen = FakeManager(), FakeScreen()
    manager.answer = {"running": True, **STARTED}

    def finish() -> None:
        manager.signal("RunFinished", FINISHED)
        asyncio.get_running_loop().call_later(0.02, screen.closed, 12)

    await _for_a_moment(manager, screen, finish)
    assert screen.calls == [("started", 0), ("finished", 11)]


async def test_a_button_that_is_pressed_before_the_notes_id_is_read_is_seen_to() -> None:
    manager, screen, service = FakeManager(), FakeScreen(), FakeService()
    manager.answer = {"running": True, **STARTED}
    service.answer.set_result("Blue")

    def press() -> None:
        screen.while_shown = lambda: None
        screen.action(11, "cancel")

    screen.while_shown = press
    await _for_a_moment(manager, screen, service=service)
    assert screen.bodies[-1].startswith("The backup to 'Blue' is being stopped")


async def test_an_unwanted_outcome_that_comes_while_another_is_shown_is_noted_too() -> None:
    manager, screen, seen = FakeManager(), FakeScreen(), Noted()
    unwanted = FINISHED | {"run": "r2", "disk": "Green", "uuid": "V", "shown": False}
    screen.while_shown = lambda: manager.signal("RunFinished", unwanted)
    await _for_a_moment(manager, screen, lambda: manager.signal("RunFinished", FINISHED), seen=seen)
    assert seen.runs[:2] == ["r1", "r2"]


async def test_progress_whose_id_was_not_read_yet_is_withdrawn_at_the_end() -> None:
    manager, screen = FakeManager(), FakeScreen()
    screen.answers_after = 0.1  # later than the end
    await _for_a_moment(manager, screen, lambda: manager.signal("RunStarted", STARTED))
    assert (screen.calls, screen.withdrawn) == ([("started", 0)], [11])
