"""What should be on the screen: signals, buttons and closed notes change it, and nothing here waits for anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from immich_usb_backup.dbus_names import RUN_FINISHED
from immich_usb_backup.model import NoticeKind, Outcome
from immich_usb_backup.policy import notes
from immich_usb_backup.policy.note_words import PENDING, Action
from immich_usb_backup.policy.notes import Note, Run, Values

_MOST_CARDS = 20
_ALL_ACTIONS = frozenset(Action)


class Kind(Enum):
    """What a card tells of."""

    RUN = "run"
    """A run that goes on."""
    OUTCOME = RUN_FINISHED
    NOTICE = "notice"


@dataclass(slots=True)
class Card:
    """One place on the screen: for one run, or for one notice. ``wanted`` is what should be there, None for nothing;
    ``values`` are those of an outcome. ``asked`` is a button that was pressed and not answered yet, ``turn`` counts what the
    card has told of, ``noted_turn`` is the one that was noted without being shown. The last four fields are what is there now."""

    disk: str
    uuid: str
    kind: Kind
    wanted: Note | None
    run_id: str = ""
    values: Values = field(default_factory=dict)
    goes_with_disk: bool = False
    dismissed: bool = False
    asked: Action | None = None
    turn: int = 0
    noted_turn: int = 0
    answer: str = ""
    without: frozenset[Action] = frozenset()
    shown: Note | None = None
    note_id: int = 0
    shown_at: float = float("-inf")
    pressed: bool = False

    @property
    def running(self) -> bool:
        """Whether it tells of a run that goes on."""
        return self.kind is Kind.RUN

    @property
    def to_be_noted(self) -> bool:
        """Whether it is an outcome that the configuration does not want on desktops, and that nobody has noted as seen to."""
        unwanted = self.kind is Kind.OUTCOME and not notes.truth(self.values, "shown", default=True)
        return unwanted and self.noted_turn != self.turn

    @property
    def note(self) -> Note | None:
        """What should be on the screen, with what came of its buttons."""
        if self.wanted is None:
            return None
        if self.asked is not None:
            return notes.with_answer(self.wanted, PENDING[self.asked], without=_ALL_ACTIONS)
        return notes.with_answer(self.wanted, self.answer, without=self.without)

    def tell(self, kind: Kind, note: Note | None) -> None:
        """From now on it tells of something else: what came of buttons is over, and what was closed opens again."""
        self.kind, self.wanted = kind, note
        self.turn += 1
        self.dismissed = False
        self.asked, self.answer, self.without = None, "", frozenset()

    def press(self, action: Action) -> None:
        """A button was pressed, and is being seen to."""
        self.asked, self.pressed = action, True
        self.shown_at = float("-inf")  # a person who presses something sees at once that it was felt

    def settle(self, action: Action, answer: str, *, agreed: bool) -> None:
        """What came of it. What was agreed to is not offered again."""
        self.asked = None
        self.shown_at = float("-inf")
        if agreed and action is Action.EJECT and self.kind is Kind.OUTCOME:
            self.values = notes.ejected(self.values)
            self.tell(Kind.OUTCOME, notes.finished(self.values))
            return
        self.answer = answer
        self.without |= {action} if agreed else frozenset()

    def gone(self) -> None:
        """It is not on the screen any more, and nobody closed it."""
        self.note_id, self.shown, self.shown_at = 0, None, float("-inf")


class Cards:
    """All of them, by run or notice, the oldest first."""

    def __init__(self) -> None:
        self._cards: dict[str, Card] = {}

    def __iter__(self) -> Iterator[Card]:
        return iter(list(self._cards.values()))

    def of_run(self, run_id: str) -> Card | None:
        """The one of a run."""
        return self._cards.get(run_id)

    def with_note(self, note_id: int) -> Card | None:
        """The one that is shown under this id."""
        return next((card for card in self if note_id and card.note_id == note_id), None)

    def begin(self, run: Run, *, shown: bool) -> None:
        """A run goes on. What was said of this disk before does not matter any more."""
        self._withdraw_older(run.run_id, disk=run.disk, uuid=run.uuid)
        wanted = notes.running(run) if shown else None
        known = self._cards.get(run.run_id)
        if known is None:
            self._add(run.run_id, Card(run.disk, run.uuid, Kind.RUN, wanted, run_id=run.run_id))
        else:
            known.wanted = wanted

    def go_on(self, run: Run) -> None:
        """A run is further than it was."""
        card = self._cards.get(run.run_id)
        if card is not None and card.running and card.wanted is not None:
            card.wanted = notes.running(run)

    def stop(self, run: Run) -> None:
        """A run will not be heard of again."""
        card = self._cards.get(run.run_id)
        if card is not None and card.running:
            card.tell(Kind.NOTICE, notes.stopped(run) if card.wanted is not None else None)

    def finish(self, values: Values, *, shown: bool) -> None:
        """A run is over, with the values of ``RunFinished``."""
        run_id, disk, uuid = (notes.text(values, key) for key in ("run", "disk", "uuid"))
        good = values.get("outcome") == Outcome.OK.value
        self._withdraw_older(run_id, disk=disk, uuid=uuid)
        if good:
            self._withdraw_reminders()
        card = self._cards.get(run_id) or self._add(run_id, Card(disk, uuid, Kind.OUTCOME, None, run_id=run_id))
        card.uuid, card.values, card.goes_with_disk = uuid, values, good
        card.tell(Kind.OUTCOME, notes.finished(values) if shown else None)

    def notice(self, values: Values) -> None:
        """A notice, in the place of the one before it of its kind about the same disk."""
        uuid, disk, kind = (notes.text(values, key) for key in ("uuid", "disk", "kind"))
        key = f"notice {kind} {uuid}"
        card = self._cards.get(key) or self._add(key, Card(disk, uuid, Kind.NOTICE, None))
        card.goes_with_disk = kind != NoticeKind.REMINDER.value
        card.tell(Kind.NOTICE, notes.notice(values))

    def remove(self, uuid: str) -> None:
        """A disk was unplugged: *safe to unplug* has been heard, and there is nothing left to eject."""
        for card in self:
            if card.uuid == uuid and not card.running:
                card.without |= {Action.EJECT}
                if card.goes_with_disk:
                    card.wanted = None

    def close(self, note_id: int) -> None:
        """A note is not on the screen any more. Some servers close it as soon as a button is pressed: what comes of that
        has to be seen. So has an outcome that came while the progress was being closed."""
        card = self.with_note(note_id)
        if card is None:
            return
        news = card.pressed or (not card.running and card.note != card.shown)
        if news:
            card.gone()
            return
        card.note_id, card.dismissed = 0, True
        if not card.running:
            card.wanted = None

    def forget_ids(self) -> None:
        """Ids of one server mean somebody else's notes on the next."""
        for card in self:
            card.gone()

    def tidy(self) -> None:
        """Drop what is not on the screen and will not be. What came in while the screen was being seen to stays."""
        self._cards = {
            key: card
            for key, card in self._cards.items()
            if card.running or card.wanted or card.note_id or card.to_be_noted
        }

    def _withdraw_older(self, run_id: str, *, disk: str, uuid: str) -> None:
        for other, card in self._cards.items():
            same = card.uuid == uuid if card.uuid and uuid else bool(disk) and card.disk == disk
            if other != run_id and same and not card.running:
                card.wanted = None

    def _withdraw_reminders(self) -> None:
        for key, card in self._cards.items():
            if key.startswith(f"notice {NoticeKind.REMINDER.value} "):
                card.wanted = None

    def _add(self, key: str, card: Card) -> Card:
        self._cards[key] = card
        for oldest in list(self._cards)[:-_MOST_CARDS]:
            self._cards[oldest].wanted = None
        return card
