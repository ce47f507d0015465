"""Buttons: what is pressed is asked for beside everything else, and what comes of it stands in the same note."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from immich_usb_backup.agent.cards import Card
from immich_usb_backup.agent.ports import Service
from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.policy import note_words
from immich_usb_backup.policy.note_words import Action


class Asking:
    """``changed`` is called when a card has changed."""

    def __init__(self, service: Service, changed: Callable[[], None]) -> None:
        self._service = service
        self._changed = changed
        self._tasks: set[asyncio.Task[None]] = set()

    def press(self, card: Card, pressed: str) -> None:
        """Ask for what this button says. One that is not on the card does nothing, nor does one after another."""
        offered = card.note.actions if card.note is not None else ()
        action = next((action for action in offered if action.value == pressed), None)
        if action is None:
            return
        card.press(action)
        task = asyncio.create_task(self._see_to(card, action, card.turn))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._changed()

    async def end(self) -> None:
        """Wait for no answer any more. What was asked for goes on in the service."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _see_to(self, card: Card, action: Action, turn: int) -> None:
        try:
            words, agreed = await self._ask(card, action)
        except BusLost:
            return  # whoever watches the bus ends the process
        if card.turn == turn:  # else the card tells of something newer
            card.settle(action, words, agreed=agreed)
            self._changed()

    async def _ask(self, card: Card, action: Action) -> tuple[str, bool]:
        try:
            answer = await self._service.ask(action, card.uuid)
        except BusCallFailed as error:
            return note_words.refused(error.name, error.message), False
        except DeadlineMissed:
            return note_words.NO_ANSWER, False
        return note_words.done(action, card.disk, answer), True
