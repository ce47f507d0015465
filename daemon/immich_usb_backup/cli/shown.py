"""How a run that is followed is shown: lines that change in place, a plain line for each step, or JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.policy.cells import Tone, line, wrapped
from immich_usb_backup.policy.progress_words import Speed, live_lines, plain_line
from immich_usb_backup.policy.run_words import TONES
from immich_usb_backup.policy.text import harmless
from immich_usb_backup.policy.views import Going, RunView

_LEFT = "Only this command has ended; the service goes on."


class Shown(Protocol):
    """Whoever shows it. ``wants_file``: whether it shows the file that is being copied."""

    wants_file: bool

    def progress(self, now: Going, current: str) -> None:
        """How far it is, and the file that is being copied where that is known."""

    def note(self, text: str) -> None:
        """Something to know on the way."""

    def finished(self, run: RunView) -> None:
        """The outcome."""

    def left(self) -> None:
        """The command ends, and the run does not."""


def shown_on(terminal: Terminal, *, as_json: bool = False) -> Shown:
    """What fits where it is shown."""
    if as_json:
        return JsonShown(terminal)
    return LiveShown(terminal) if terminal.live else PlainShown(terminal)


class LiveShown:
    """Changes in place."""

    wants_file = True

    def __init__(self, terminal: Terminal, clock: Callable[[], float] = time.monotonic) -> None:
        self._terminal = terminal
        self._clock = clock
        self._speed = Speed()

    def progress(self, now: Going, current: str) -> None:
        """Draw it anew."""
        self._speed = self._speed.and_then(now, self._clock())
        self._terminal.redraw(live_lines(self._speed.of(now), self._terminal.columns - 1, current=current))

    def note(self, text: str) -> None:
        """A line that stays."""
        self._terminal.say(*wrapped(text, self._terminal.columns))

    def finished(self, run: RunView) -> None:
        """The outcome takes the place of the progress."""
        _tell(self._terminal, run)

    def left(self) -> None:
        """What is drawn stays."""
        self._terminal.keep()
        self._terminal.say(line(_LEFT))


class PlainShown:
    """A line for each step."""

    wants_file = False

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal
        self._step = ("", "")

    def progress(self, now: Going, current: str) -> None:
        """Say it where the step is a new one."""
        del current
        if self._step == (now.run, now.stage):
            return
        self._step = (now.run, now.stage)
        self._terminal.say(line(plain_line(now) if now.stage else harmless(now.headline)))

    def note(self, text: str) -> None:
        """One more line."""
        self._terminal.say(line(text))

    def finished(self, run: RunView) -> None:
        """The outcome."""
        _tell(self._terminal, run)

    def left(self) -> None:
        """A last line."""
        self._terminal.say(line(_LEFT))


class JsonShown:
    """One JSON document on each line."""

    wants_file = False

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def progress(self, now: Going, current: str) -> None:
        """``progress``."""
        del current
        self._say("progress", asdict(now))

    def note(self, text: str) -> None:
        """``note``."""
        self._say("note", {"text": text})

    def finished(self, run: RunView) -> None:
        """``finished``."""
        keys = ("run", "disk", "name", "outcome", "safe_to_unplug", "headline", "body", "todo")
        self._say("finished", {key: getattr(run, key) for key in keys})

    def left(self) -> None:
        """Nothing is drawn."""

    def _say(self, event: str, values: dict[str, Any]) -> None:
        self._terminal.say(line(json.dumps({"event": event, **values})))


def _tell(terminal: Terminal, run: RunView) -> None:
    texts = [(run.headline, TONES.get(run.outcome, Tone.STRONG)), (run.body, Tone.PLAIN), (run.todo, Tone.STRONG)]
    for text, tone in texts:
        for part in text.split("\n") if text else []:
            terminal.say(*wrapped(harmless(part), terminal.columns, tone, indent=2))
