"""Messages to phones and chats through Apprise: blocking, in a thread, with a deadline.

Apprise is an extra of the package. Its addresses hold secrets, and what it logs may hold them too: nothing of either goes
any further than the kind of an address (``ntfys``) and the number of an error.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from immich_usb_backup.adapters.secret_files import THEN_RESTART, lines
from immich_usb_backup.adapters.threads import in_thread
from immich_usb_backup.config import Push
from immich_usb_backup.errors import BackupError, DeliveryFailed
from immich_usb_backup.model import Outcome
from immich_usb_backup.policy import delivery
from immich_usb_backup.policy.letters import Letter, letter_of, short_text
from immich_usb_backup.policy.news import Begun, News

CREDENTIAL = "push-urls"
"""The name for ``LoadCredential=`` in the notifier's unit."""

NOBODY_KNOWN = delivery.push_channel("somebody", "")
"""Stands for everybody while the addresses cannot be read."""

_WHAT = "list of push addresses"
_KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,19})://")
_STATUS = re.compile(r"error=(\d{3})\b")
_FOREIGN_LOGS = ("apprise", "urllib3", "requests")
_INSTALL = (
    "Run scripts/install again: it adds Apprise where config.toml has a [push] section. Else: sudo apt install apprise "
    f"(with the Debian package), or pipx inject immich-usb-backup apprise. {THEN_RESTART}"
)


class Pusher:
    """Implements ``notifier.Courier``; a channel is a line of the file. ``credentials`` is systemd's
    ``$CREDENTIALS_DIRECTORY``, where there is one; ``seconds`` is how long one message may take."""

    in_order = False

    def __init__(self, push: Push, *, credentials: Path | None = None, seconds: float = 90.0) -> None:
        self._push = push
        self._credentials = credentials
        self._seconds = seconds

    async def channels(self, news: News) -> tuple[str, ...]:
        """Whom the configuration wants to be told."""
        if not delivery.for_people(news, self._push.on):
            return ()
        try:
            return tuple(await self._addresses())
        except BackupError:
            return (NOBODY_KNOWN,)

    async def deliver(self, news: News, channels: Sequence[str]) -> Mapping[str, BackupError]:
        """A message to each of them; returns who could not be told. Raises ``DeliveryFailed``, ``DeadlineMissed``."""
        assert not isinstance(news, Begun), "nobody is told that"
        addresses = await self._addresses()
        letter = letter_of(news)
        failures: dict[str, BackupError] = {}
        for channel in channels:
            try:
                await self._one(addresses[channel], letter)
            except BackupError as error:
                failures[channel] = error
        return failures

    async def _one(self, address: str, letter: Letter) -> None:
        what = "A pushed message"
        await in_thread(lambda _: _send(address, letter), what=what, stall_seconds=self._seconds)

    async def _addresses(self) -> Mapping[str, str]:
        """By their channels. Raises ``DeliveryFailed``."""
        found = await in_thread(lambda _: self._read(), what=f"Reading the {_WHAT}", stall_seconds=self._seconds)
        return {_channel(address): address for address in found}

    def _read(self) -> tuple[str, ...]:
        path = self._push.urls_file or (self._credentials / CREDENTIAL if self._credentials else None)
        if path is None:
            raise DeliveryFailed(
                "There is a [push] section and no address.",
                hint=f"Set push.urls_file, or put them into /etc/immich-usb-backup/{CREDENTIAL}. {THEN_RESTART}",
            )
        return lines(path, what=_WHAT)


def _channel(address: str) -> str:
    kind = _KIND.match(address)
    digest = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return delivery.push_channel(kind[1].lower() if kind else "somebody", digest)


def _send(address: str, letter: Letter) -> None:
    """Raises ``DeliveryFailed``."""
    with _overheard() as numbers:
        try:
            _hand_over(address, letter, numbers)
        except DeliveryFailed:
            raise
        except ImportError:
            raise DeliveryFailed("The package Apprise is not installed.", hint=_INSTALL) from None
        except Exception as error:  # noqa: BLE001  # a hundred services' code; its trace would show the address
            raise DeliveryFailed(f"Apprise ended with {type(error).__name__}.", hint=_INSTALL) from None


def _hand_over(address: str, letter: Letter, numbers: Sequence[str]) -> None:
    import apprise

    sender = apprise.Apprise(asset=apprise.AppriseAsset(app_id="Immich USB backup"))
    if not sender.add(address):
        raise DeliveryFailed(
            "Apprise does not understand the address.",
            permanent=True,
            hint=f"Correct the line in the {_WHAT}: https://appriseit.com tells how each looks. {THEN_RESTART}",
        )
    text = short_text(letter) or letter.headline
    if not sender.notify(title=letter.subject, body=text, notify_type=_type(letter), body_format="text"):
        raise _refused(numbers)


def _type(letter: Letter) -> str:
    kinds = {Outcome.OK.value: "success", Outcome.PARTIAL.value: "warning", Outcome.INTERRUPTED.value: "warning"}
    return kinds.get(letter.tone, "failure" if letter.tone == Outcome.FAILED else "info")


def _refused(numbers: Sequence[str]) -> DeliveryFailed:
    if numbers:
        hint = f"Is the address right: its secret, its topic or chat? {THEN_RESTART}"
        return DeliveryFailed(f"The service answered with the error {numbers[-1]}.", hint=hint)
    return DeliveryFailed(
        "The service could not be reached, or did not take the message.",
        hint=f"Is there a network, and is the address right? {THEN_RESTART}",
    )


@contextmanager
def _overheard() -> Iterator[list[str]]:
    """The numbers of the errors that Apprise tells while inside. What it and its libraries log goes nowhere."""
    ear = _Ear()
    loggers = [logging.getLogger(name) for name in _FOREIGN_LOGS]
    for logger in loggers:
        logger.propagate = False
        logger.handlers = [logging.NullHandler(), ear]  # without any, Python prints what is serious
    try:
        yield ear.numbers
    finally:
        for logger in loggers:
            logger.removeHandler(ear)


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(level=logging.WARNING)
        self.numbers: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the number, if there is one."""
        if found := _STATUS.search(record.getMessage()):
            self.numbers.append(found[1])
