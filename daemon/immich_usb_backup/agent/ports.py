"""What the agent needs of the world. Every method raises ``BusLost``, ``BusCallFailed`` and ``DeadlineMissed``, unless it says
otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from immich_usb_backup.policy.note_words import Action
from immich_usb_backup.policy.notes import Note


class Manager(Protocol):
    """What the daemon says."""

    async def watch(
        self, on_signal: Callable[[str, Mapping[str, Any]], None], on_owner: Callable[[bool], None]
    ) -> bool:
        """Begin to listen; returns whether the daemon is there."""

    async def state(self) -> Mapping[str, Any]:
        """What the daemon does now."""


class Service(Protocol):
    """What the daemon can be asked for."""

    async def ask(self, action: Action, disk: str) -> object:
        """Have something done to a disk (its UUID); returns what the method answers. May take as long as a person needs to
        find a password, and ``EJECT`` half an hour."""

    async def history(self) -> Sequence[Mapping[str, Any]]:
        """The newest runs of all disks, as ``GetHistory`` has them."""

    async def disks(self) -> Sequence[Mapping[str, Any]]:
        """The disks that are known or plugged in, as ``GetDisks`` has them."""

    async def details(self, run_id: str) -> Mapping[str, Any]:
        """Everything about one run, as its object has it."""


class Screen(Protocol):
    """The desktop's side."""

    async def watch(
        self,
        on_closed: Callable[[int], None],
        on_server: Callable[[bool], None],
        on_action: Callable[[int, str], None],
    ) -> bool:
        """Begin to listen for notes that were closed, for notification servers that come and go, and for buttons (the note
        and the action's value); returns whether there is a server."""

    async def show(self, note: Note, *, replaces: int) -> int:
        """Show a note in the place of another (0: none); returns its id."""

    async def withdraw(self, note_id: int) -> None:
        """Take a note away."""


class Seat(Protocol):
    """Whether this user is the one who sits at the machine."""

    async def watch(self, on_change: Callable[[], None]) -> None:
        """Begin to listen for changes."""

    async def in_front(self) -> bool:
        """Whether this user's session is the one that is seen. True where nothing knows."""


class Seen(Protocol):
    """What this desktop has shown. Neither method raises: whoever cannot remember shows something twice."""

    async def newest(self) -> Mapping[str, str]:
        """For the UUID of each disk the run whose outcome was shown last."""

    async def note(self, uuid: str, run_id: str) -> None:
        """An outcome was shown."""
