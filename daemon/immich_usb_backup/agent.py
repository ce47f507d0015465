"""In a user's session: turns what the daemon says on the system bus into notifications that update in place.

Signals only change what *should* be on the screen; one worker makes it so. So a burst is one update, a desktop that
is not there yet is caught up with, and a notification server that starts anew gets what still holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from immich_usb_backup.dbus_names import DISK_REMOVED, RUN_FINISHED, RUN_PROGRESS, RUN_STARTED
from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy import notes
from immich_usb_backup.policy.notes import Note, Run, Values
from immich_usb_backup.ports import Log

PROGRESS_SECONDS = 2.0
RETRY_SECONDS = 30.0
_MOST_CARDS = 20


class Manager(Protocol):
    """The daemon's side. The methods raise ``BusLost``, ``BusCallFailed``, ``DeadlineMissed``."""

    async def watch(
        self, on_signal: Callable[[str, Mapping[str, Any]], None], on_owner: Callable[[bool], None]
    ) -> bool:
        """Begin to listen; returns whether the daemon is there."""

    async def state(self) -> Mapping[str, Any]:
        """What the daemon does now."""


class Screen(Protocol):
    """The desktop's side. The methods raise ``BusLost``, ``BusCallFailed``, ``DeadlineMissed``."""

    async def watch(self, on_closed: Callable[[int], None], on_server: Callable[[bool], None]) -> bool:
        """Begin to listen for notes that were closed and for notification servers that come and go; returns whether
        there is one."""

    async def show(self, note: Note, *, replaces: int) -> int:
        """Show a note in the place of another (0: none); returns its id."""

    async def withdraw(self, note_id: int) -> None:
        """Take a note away."""


@dataclass(slots=True)
class Card:
    """One place on the screen, for one run. ``wanted`` is what should be there, None for nothing."""

    disk: str
    uuid: str
    wanted: Note | None
    running: bool = True
    withdraw_on_removal: bool = False
    dismissed: bool = False
    shown: Note | None = None
    note_id: int = 0
    shown_at: float = float("-inf")


class Agent:
    """Shows runs. ``progress`` false: only how they ended."""

    def __init__(
        self,
        manager: Manager,
        screen: Screen,
        log: Log,
        *,
        progress: bool = True,
        progress_seconds: float = PROGRESS_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._manager = manager
        self._screen = screen
        self._log = log
        self._progress = progress
        self._progress_seconds = progress_seconds
        self._retry_seconds = retry_seconds
        self._cards: dict[str, Card] = {}
        self._run: Run | None = None
        self._heard = 0
        self._something_changed = asyncio.Event()
        self._ask_for_state = False
        self._trouble = ""
        self._server_there = False
        self._lives_ended = 0

    async def run(self) -> None:
        """For ever. Raises ``BusLost``, and what the first calls on a bus raise; cancelled, it withdraws progress."""
        self._server_there = await self._screen.watch(self._on_closed, self._on_server)
        self._ask_for_state = await self._manager.watch(self._on_signal, self._on_owner)
        self._log.say(Event.AGENT_READY)
        try:
            await self._work()
        finally:
            await self._leave()

    async def _work(self) -> None:
        while True:
            self._something_changed.clear()
            if self._ask_for_state:
                await self._learn_state()
            seconds = await self._update()
            waiting = asyncio.ensure_future(self._something_changed.wait())
            await asyncio.wait({waiting}, timeout=seconds)
            waiting.cancel()

    # What the daemon says ---------------------------------------------------------------------------------

    async def _learn_state(self) -> None:
        """A run may be on its way. What was heard while we asked is newer than the answer."""
        self._ask_for_state = False
        heard = self._heard
        try:
            state = await self._manager.state()
        except (BusCallFailed, DeadlineMissed):
            return  # it comes with a new owner, or with the next signal
        if self._heard == heard and notes.truth(state, "running", default=False):
            self._begin(state)

    def _on_signal(self, member: str, values: Values) -> None:
        self._heard += 1
        handler = {
            RUN_STARTED: self._begin,
            RUN_PROGRESS: self._on_progress,
            RUN_FINISHED: self._on_finished,
            DISK_REMOVED: self._on_removed,
        }.get(member)
        if handler is not None:
            handler(values)
            self._something_changed.set()

    def _on_owner(self, there: bool) -> None:  # noqa: FBT001  # a callback
        self._heard += 1
        self._ask_for_state = there
        self._stop_run()
        self._something_changed.set()

    def _begin(self, values: Values) -> None:
        run = notes.run_of(values)
        if self._run is not None and self._run.run_id != run.run_id:
            self._stop_run()
        self._run = run
        self._withdraw_older(run.run_id, disk=run.disk, uuid=run.uuid)
        wanted = notes.running(run) if self._shows_progress(values) else None
        known = self._cards.get(run.run_id)
        if known is None:
            self._add(run.run_id, Card(disk=run.disk, uuid=run.uuid, wanted=wanted))
        else:
            known.wanted = wanted

    def _shows_progress(self, values: Values) -> bool:
        return self._progress and notes.truth(values, "shown", default=True)

    def _on_progress(self, values: Values) -> None:
        if self._run is None or self._run.run_id != notes.text(values, "run"):
            self._ask_for_state = True  # its start was missed
            return
        self._run = replace(self._run, line=notes.text(values, "line"), percent=notes.percent(values))
        card = self._cards.get(self._run.run_id)
        if card is not None and card.running and card.wanted is not None:
            card.wanted = notes.running(self._run)

    def _on_finished(self, values: Values) -> None:
        run_id, disk, uuid = (notes.text(values, key) for key in ("run", "disk", "uuid"))
        if self._run is not None and self._run.run_id == run_id:
            self._run = None
        self._withdraw_older(run_id, disk=disk, uuid=uuid)
        card = self._cards.get(run_id) or self._add(run_id, Card(disk=disk, uuid=uuid, wanted=None))
        card.uuid = uuid
        card.wanted = notes.finished(values) if notes.truth(values, "shown", default=True) else None
        card.running = card.dismissed = False
        card.withdraw_on_removal = values.get("outcome") == Outcome.OK.value

    def _on_removed(self, values: Values) -> None:
        uuid = notes.text(values, "uuid")
        for card in self._cards.values():
            if card.withdraw_on_removal and card.uuid == uuid:
                card.wanted = None

    def _stop_run(self) -> None:
        """The run that we follow will not be heard of again."""
        if self._run is None:
            return
        card = self._cards.get(self._run.run_id)
        if card is not None and card.running:
            card.wanted = notes.stopped(self._run) if card.wanted is not None else None
            card.running = card.dismissed = False
        self._run = None

    def _withdraw_older(self, run_id: str, *, disk: str, uuid: str) -> None:
        """What was said about this disk's earlier runs no longer matters."""
        for other, card in self._cards.items():
            same = card.uuid == uuid if card.uuid and uuid else card.disk == disk
            if other != run_id and same and not card.running:
                card.wanted = None

    def _add(self, run_id: str, card: Card) -> Card:
        self._cards[run_id] = card
        for oldest in list(self._cards)[:-_MOST_CARDS]:
            self._cards[oldest].wanted = None
        return card

    # What the desktop says --------------------------------------------------------------------------------

    def _on_closed(self, note_id: int) -> None:
        for card in self._cards.values():
            if card.note_id == note_id:
                card.note_id = 0
                card.dismissed = True
                if not card.running:
                    card.wanted = None

    def _on_server(self, there: bool) -> None:  # noqa: FBT001  # a callback
        """Ids of one server mean somebody else's notes on the next."""
        self._lives_ended += self._server_there
        self._server_there = there
        for card in self._cards.values():
            card.note_id = 0
            card.shown = None
            card.shown_at = float("-inf")
        if there:
            self._something_changed.set()

    # The worker -------------------------------------------------------------------------------------------

    async def _update(self) -> float | None:
        """Make the screen what it should be; returns after how many seconds to look again, None: when told to."""
        try:
            pauses = [await self._update_card(card) for card in list(self._cards.values())]
        except (BusCallFailed, DeadlineMissed) as error:
            self._complain(error)
            return self._retry_seconds
        self._trouble = ""
        self._cards = {key: card for key, card in self._cards.items() if card.running or card.wanted or card.note_id}
        waits = [pause for pause in pauses if pause > 0]
        return min(waits, default=None)

    async def _update_card(self, card: Card) -> float:
        """Returns the seconds until this card may change again, 0 where it is as it should be."""
        wanted = card.wanted
        if wanted is None:
            await self._take_away(card)
            return 0.0
        if wanted == card.shown or (card.dismissed and card.running):
            return 0.0
        now = asyncio.get_running_loop().time()
        if card.running and (pause := card.shown_at + self._progress_seconds - now) > 0:
            return pause
        life = self._lives_ended
        note_id = await self._screen.show(wanted, replaces=card.note_id)
        if life == self._lives_ended:  # else it went down with its server
            card.note_id, card.shown, card.shown_at = note_id, wanted, now
        return 0.0

    async def _take_away(self, card: Card) -> None:
        note_id, card.note_id, card.shown = card.note_id, 0, None
        if note_id:
            try:
                await self._screen.withdraw(note_id)
            except BusCallFailed:
                return  # it is gone already

    def _complain(self, error: BusCallFailed | DeadlineMissed) -> None:
        if error.message != self._trouble:
            self._trouble = error.message
            self._log.say(
                Event.DELIVERY_FAILED,
                channel="the desktop",
                message=f"{error.message.rstrip('.')}.",
                seconds=self._retry_seconds,
                hint=error.hint,
            )

    async def _leave(self) -> None:
        """Nobody would ever move this progress bar again."""
        for card in self._cards.values():
            if card.running:
                try:
                    await self._take_away(card)
                except (BusLost, DeadlineMissed):
                    return
