"""What a command writes to: a terminal with its width and colours, or a pipe."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from typing import TextIO

from immich_usb_backup.policy.cells import Line, Tone, cells, plain

_PIPE_COLUMNS, _FEWEST = 200, 20
_COLOURS = {
    Tone.STRONG: "1",
    Tone.DIM: "2",
    Tone.GOOD: "32",
    Tone.WARN: "33",
    Tone.BAD: "31",
}
_ERASE, _ONE_UP = "\r\x1b[K", "\x1b[1A\x1b[K"


class Terminal:
    """``live``: lines may be changed in place. ``NO_COLOR`` and ``FORCE_COLOR`` decide on colours, else whether it is
    live."""

    def __init__(self, stream: TextIO | None = None, environment: Mapping[str, str] | None = None) -> None:
        self._stream = stream or sys.stdout
        env = os.environ if environment is None else environment
        self._width = env.get("COLUMNS", "")
        self.live = self._stream.isatty() and env.get("TERM", "dumb") not in {"", "dumb"}
        forced = env.get("FORCE_COLOR", "") not in {"", "0"}
        self.colour = not env.get("NO_COLOR") and (forced or self.live)
        self._drawn: list[int] = []
        if isinstance(self._stream, io.TextIOWrapper):  # a name that the locale cannot show ends no command
            self._stream.reconfigure(errors="backslashreplace")

    @property
    def columns(self) -> int:
        """How many cells a line has, as it is now."""
        if self._width.isdecimal() and int(self._width):
            return max(_FEWEST, int(self._width))
        if not self._stream.isatty():
            return _PIPE_COLUMNS
        return max(_FEWEST, shutil.get_terminal_size().columns)

    def say(self, *lines: Line) -> None:
        """Lines that stay; what is drawn in place makes way for them."""
        self._write(self._away() + "".join(f"{self._coloured(line)}\n" for line in lines))

    def redraw(self, lines: Iterable[Line]) -> None:
        """Lines in the place of those that were drawn before. Only where it is ``live``."""
        kept = list(lines)
        text = self._away() + "\n".join(map(self._coloured, kept))
        self._drawn = [cells(plain(line)) for line in kept]
        self._write(text)

    def keep(self) -> None:
        """Leave what is drawn where it is."""
        if self._drawn:
            self._drawn = []
            self._write("\n")

    def _away(self) -> str:
        """A terminal that became narrower has broken the lines that are drawn."""
        rows = sum(max(1, -(-used // self.columns)) for used in self._drawn)
        self._drawn = []
        return _ERASE + _ONE_UP * (rows - 1) if rows else ""

    def _coloured(self, line: Line) -> str:
        if not self.colour:
            return plain(line)
        return "".join(
            f"\x1b[{_COLOURS[part.tone]}m{part.text}\x1b[0m" if part.tone in _COLOURS else part.text for part in line
        )

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
