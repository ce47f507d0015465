"""In a user's session: turns what the daemon says on the system bus into notifications that update in place.

Signals only change what *should* be on the screen; one worker makes it so. So a burst is one update, a desktop that
is not there yet is caught up with, and a notification server that starts anew gets what still holds. While another user
sits at the machine nothing is shown; what was missed is told when this one is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

from immich_usb_backup.agent.asking import Asking
from immich_usb_backup.agent.cards import Card, Cards, Kind
from immich_usb_backup.agent.catch_up import CatchUp
from immich_usb_backup.agent.ports import Manager, Screen, Seat, Seen, Service
from immich_usb_backup.dbus_names import DISK_REMOVED, NOTICE, RUN_FINISHED, RUN_PROGRESS, RUN_STARTED
from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.events import Event
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy import notes
from immich_usb_backup.policy.notes import Note, Run, Values
from immich_usb_backup.ports import Clock, Log

PROGRESS_SECONDS = 2.0
RETRY_SECONDS = 30.0


class Agent:
    """Shows runs. ``progress`` false: only how they ended; ``on``: which outcomes somebody who was away is told of;
    ``seat`` None: shows them wherever this user is."""

    def __init__(
        self,
        manager: Manager,
        service: Service,
        screen: Screen,
        seen: Seen,
        clock: Clock,
        log: Log,
        *,
        seat: Seat | None = None,
        progress: bool = True,
        on: Collection[Outcome] = tuple(Outcome),
        progress_seconds: float = PROGRESS_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._manager = manager
        self._screen = screen
        self._seen = seen
        self._seat = seat
        self._log = log
        self._progress = progress
        self._progress_seconds = progress_seconds
        self._retry_seconds = retry_seconds
        self._cards = Cards()
        self._something_changed = asyncio.Event()
        self._asking = Asking(service, self._something_changed.set)
        self._catch_up = CatchUp(service, seen, clock, on)
        self._run: Run | None = None
        self._heard = 0
        self._ask_for_state = self._ask_for_missed = False
        self._ask_who_sits = seat is not None
        self._in_front = seat is None
        self._trouble = ""
        self._server_there = self._showing = False
        self._early: list[Callable[[], None]] = []
        self._lives_ended = 0

    async def run(self) -> None:
        """For ever. Raises ``BusLost``, and what the first calls on a bus raise; cancelled, it withdraws progress."""
        self._server_there = await self._screen.watch(self._on_closed, self._on_server, self._on_action)
        if self._seat is not None:
            await self._seat.watch(self._on_seat)
        self._ask_for_state = self._ask_for_missed = await self._manager.watch(self._on_signal, self._on_owner)
        self._log.say(Event.AGENT_READY)
        try:
            await self._work()
        finally:
            await self._asking.end()
            await self._leave()

    async def _work(self) -> None:
        while True:
            self._something_changed.clear()
            seconds = await self._turn()
            waiting = asyncio.ensure_future(self._something_changed.wait())
            await asyncio.wait({waiting}, timeout=seconds)
            waiting.cancel()

    async def _turn(self) -> float | None:
        """One look at everything; returns after how many seconds to look again, None: when told to."""
        if self._ask_who_sits:
            await self._learn_who_sits()
        if self._ask_for_state:
            await self._learn_state()
        if not self._in_front:
            return None
        if self._ask_for_missed:
            await self._learn_missed()
        return await self._update()

    # Who sits at the machine ------------------------------------------------------------------------------

    def _on_seat(self) -> None:
        self._ask_who_sits = True
        self._something_changed.set()

    async def _learn_who_sits(self) -> None:
        self._ask_who_sits = False
        before = self._in_front
        self._in_front = self._seat is None or await self._seat.in_front()
        self._ask_for_missed |= self._in_front and not before

    # What the daemon says ---------------------------------------------------------------------------------

    async def _learn_state(self) -> None:
        """A run may be on its way. What was heard of runs while we asked is newer than the answer."""
        self._ask_for_state = False
        heard = self._heard
        try:
            state = await self._manager.state()
        except (BusCallFailed, DeadlineMissed):
            return  # it comes with a new owner, or with the next signal
        if self._heard == heard and notes.truth(state, "running", default=False):
            self._begin(state)

    async def _learn_missed(self) -> None:
        """What is told of by signals meanwhile is on a card already."""
        self._ask_for_missed = False
        try:
            missed = await self._catch_up.missed()
        except (BusCallFailed, DeadlineMissed):
            return  # it comes with a new owner, or when the user comes back
        for values in missed:
            card = self._cards.of_run(notes.text(values, "run"))
            going_on = self._run is not None and self._run.uuid == values["uuid"]
            if not going_on and (card is None or card.wanted is None):
                self._cards.finish(values, shown=True)

    def _on_signal(self, member: str, values: Values) -> None:
        self._heard += member in (RUN_STARTED, RUN_PROGRESS, RUN_FINISHED)
        handler = {
            RUN_STARTED: self._begin,
            RUN_PROGRESS: self._on_progress,
            RUN_FINISHED: self._on_finished,
            DISK_REMOVED: lambda values: self._cards.remove(notes.text(values, "uuid")),
            NOTICE: self._cards.notice,
        }.get(member)
        if handler is not None:
            handler(values)
            self._something_changed.set()

    def _on_owner(self, there: bool) -> None:  # noqa: FBT001  # a callback
        self._heard += 1
        self._ask_for_state = there
        self._ask_for_missed |= there
        self._stop_run()
        self._something_changed.set()

    def _begin(self, values: Values) -> None:
        run = notes.run_of(values)
        if self._run is not None and self._run.run_id != run.run_id:
            self._stop_run()
        self._run = run
        self._cards.begin(run, shown=self._progress and notes.truth(values, "shown", default=True))

    def _on_progress(self, values: Values) -> None:
        if self._run is None or self._run.run_id != notes.text(values, "run"):
            self._ask_for_state = True  # its start was missed
            return
        self._run = notes.moved_on(self._run, values)
        self._cards.go_on(self._run)

    def _on_finished(self, values: Values) -> None:
        if self._run is not None and self._run.run_id == notes.text(values, "run"):
            self._run = None
        wanted = notes.truth(values, "shown", default=True)
        self._cards.finish(values, shown=wanted and self._in_front)
        self._ask_for_missed |= wanted and not self._in_front

    def _stop_run(self) -> None:
        """The run that we follow will not be heard of again."""
        if self._run is not None:
            self._cards.stop(self._run)
            self._run = None

    # What the desktop says --------------------------------------------------------------------------------

    def _on_closed(self, note_id: int) -> None:
        if self._is_too_early(note_id):
            self._early.append(lambda: self._on_closed(note_id))
            return
        self._cards.close(note_id)
        self._something_changed.set()

    def _is_too_early(self, note_id: int) -> bool:
        """Whether it is about a note that is being shown, whose id nobody has read yet."""
        return self._showing and self._cards.with_note(note_id) is None

    def _on_server(self, there: bool) -> None:  # noqa: FBT001  # a callback
        self._lives_ended += self._server_there
        self._server_there = there
        self._cards.forget_ids()
        self._early.clear()
        if there:
            self._something_changed.set()

    def _on_action(self, note_id: int, action: str) -> None:
        if self._is_too_early(note_id):
            self._early.append(lambda: self._on_action(note_id, action))
            return
        card = self._cards.with_note(note_id)
        if card is not None:
            self._asking.press(card, action)

    # The worker -------------------------------------------------------------------------------------------

    async def _update(self) -> float | None:
        """Make the screen what it should be; returns after how many seconds to look again, None: when told to."""
        try:
            pauses = [await self._update_card(card) for card in self._cards]
        except (BusCallFailed, DeadlineMissed) as error:
            self._complain(error)
            return self._retry_seconds
        self._trouble = ""
        self._cards.tidy()
        waits = [pause for pause in pauses if pause > 0]
        return min(waits, default=None)

    async def _update_card(self, card: Card) -> float:
        """Returns the seconds until this card may change again, 0 where it is as it should be."""
        note = card.note
        if note is None:
            await self._take_away(card)
            if card.to_be_noted:
                card.noted_turn = card.turn
                await self._seen.note(card.uuid, card.run_id)
            return 0.0
        if note == card.shown or (card.dismissed and card.running):
            return 0.0
        now = asyncio.get_running_loop().time()
        if card.running and (pause := card.shown_at + self._progress_seconds - now) > 0:
            return pause
        await self._show(card, note, now)
        return 0.0

    async def _show(self, card: Card, note: Note, now: float) -> None:
        life, kind, pressed = self._lives_ended, card.kind, card.pressed
        self._showing = True
        try:
            note_id = await self._shown_id(card, note)
        finally:
            self._showing = False
        if pressed:  # a server that closes what is pressed has done so before it answers
            card.pressed = False
        if life == self._lives_ended:  # else it went down with its server
            card.note_id, card.shown, card.shown_at = note_id, note, now
        early, self._early = self._early, []
        for happened in early:
            happened()
        if kind is Kind.OUTCOME:
            await self._seen.note(card.uuid, card.run_id)

    async def _shown_id(self, card: Card, note: Note) -> int:
        """Read even when we are told to end meanwhile: what has no id cannot be withdrawn."""
        asked = asyncio.ensure_future(self._screen.show(note, replaces=card.note_id))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            with suppress(BusCallFailed, BusLost, DeadlineMissed):
                card.note_id = await asked
            raise

    async def _take_away(self, card: Card) -> None:
        note_id = card.note_id
        card.note_id, card.shown = 0, None
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
        for card in self._cards:
            if card.running:
                try:
                    await self._take_away(card)
                except (BusLost, DeadlineMissed):
                    return
