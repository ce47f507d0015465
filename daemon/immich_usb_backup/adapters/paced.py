"""Something that may be done often, done only so often; the newest of what was put off is done when it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Paced:
    """At most once in ``seconds``, whatever happens."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._last: float | None = None
        self._later: asyncio.TimerHandle | None = None
        self._newest: Callable[[], None] = lambda: None

    def do(self, what: Callable[[], None]) -> None:
        """Do it now, or as soon as it may be; what was put off before it is not done any more."""
        self._newest = what
        wait = 0.0 if self._last is None else self._last + self._seconds - self._monotonic()
        if wait <= 0:
            self.drop()
            self._now()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(wait, self._now)

    def _now(self) -> None:
        self._later = None
        self._last = self._monotonic()
        self._newest()

    def drop(self) -> None:
        """Do not do what was put off."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
