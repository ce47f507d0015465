"""Who may do what: root everything, the others what polkit allows them. Whoever cannot be asked about may not."""

from __future__ import annotations

import os
from contextlib import suppress
from enum import StrEnum
from itertools import count

from immich_usb_backup.adapters.bus import Bus, Caller, typed
from immich_usb_backup.dbus_names import BUS_NAME
from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.requests import Refusal, Refused

GROUP = "immich-usb-backup-admins"
"""Whoever is in it may do everything: see systemd/50-immich-usb-backup.rules."""

_AUTHORITY = (
    "org.freedesktop.PolicyKit1",
    "/org/freedesktop/PolicyKit1/Authority",
    "org.freedesktop.PolicyKit1.Authority",
)
_MAY_ASK_THE_PERSON = 1
_SECONDS = 20.0
_PERSON_SECONDS = 300.0
"""How long a person may take to type a password."""


class Action(StrEnum):
    """What polkit is asked about: see systemd/io.github.immich_usb_backup1.policy."""

    INSPECT = f"{BUS_NAME}.inspect"
    OPERATE = f"{BUS_NAME}.operate"
    DECIDE = f"{BUS_NAME}.decide"


class Polkit:
    """Asks polkit about callers, by their names on the bus."""

    def __init__(self, bus: Bus, *, seconds: float = _SECONDS, person_seconds: float = _PERSON_SECONDS) -> None:
        self._bus = bus
        self._seconds = seconds
        self._person_seconds = person_seconds
        self._number = count()

    async def check(self, caller: Caller, action: Action, *, own_user: bool = False) -> int:
        """The caller's user id, if it may. ``own_user``: the user that this process runs as may, too. Raises ``Refused``,
        ``BusLost``."""
        user = await self._user(caller)
        if user == 0 or (own_user and user == os.geteuid()):
            return user
        async with self._bus.while_there(caller.name):
            allowed, why = await self._ask(caller, action)
        if not allowed:
            raise _refused(why)
        return user

    async def _user(self, caller: Caller) -> int:
        try:
            return await self._bus.user_of(caller.name)
        except (BusCallFailed, DeadlineMissed) as error:
            raise _refused(f"it cannot be told who you are ({error.message})") from error

    async def _ask(self, caller: Caller, action: Action) -> tuple[bool, str]:
        """Whether it is allowed, and what is to be said where polkit could not tell."""
        name = f"{caller.name}-{next(self._number)}"
        subject = ["system-bus-name", {"name": typed("s", caller.name)}]
        flags = _MAY_ASK_THE_PERSON if caller.interactive else 0
        seconds = self._person_seconds if caller.interactive else self._seconds
        body = [subject, str(action), {}, flags, name]
        answered = False
        try:
            reply = await self._bus.call(*_AUTHORITY, "CheckAuthorization", "(sa{sv})sa{ss}us", body, timeout=seconds)
            answered = True
        except BusCallFailed as error:
            answered = True
            return False, f"polkit could not be asked ({error.message})"
        except DeadlineMissed:
            return False, "polkit did not answer"
        finally:
            if not answered:  # too late, or whoever called has gone: the question goes from the screen
                await self._cancel(name)
        return _is_yes(reply), ""

    async def _cancel(self, name: str) -> None:
        with suppress(BusCallFailed, BusLost, DeadlineMissed):
            await self._bus.call(*_AUTHORITY, "CancelCheckAuthorization", "s", [name], timeout=1)


def _is_yes(reply: tuple[object, ...]) -> bool:
    """The answer is ``(bba{ss})``: authorized, could be after a question, details."""
    return len(reply) == 1 and isinstance(reply[0], list) and len(reply[0]) == 3 and reply[0][0] is True


def _refused(why: str) -> Refused:
    message = f"You may not do this: it is for root and for members of the group {GROUP}"
    hint = f"Run it with sudo, or have an administrator run: sudo usermod --append --groups {GROUP} USER"
    return Refused(Refusal.NOT_ALLOWED, f"{message}; {why}" if why else message, hint=f"{hint} (then log in again).")
