"""Text in the cells of a terminal: wide characters take two, accents none; cut, padded and wrapped by what is seen."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_MARKS = {"Mn", "Me"}


class Tone(StrEnum):
    """What colour says beside the words; the words alone are always enough."""

    PLAIN = "plain"
    STRONG = "strong"
    DIM = "dim"
    GOOD = "good"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Part:
    """Some text of a line, in one tone."""

    text: str
    tone: Tone = Tone.PLAIN


Line = tuple[Part, ...]


def line(text: str, tone: Tone = Tone.PLAIN) -> Line:
    """A line in one tone."""
    return (Part(text, tone),)


def plain(whole: Line) -> str:
    """The line's text alone."""
    return "".join(part.text for part in whole)


def cells(text: str) -> int:
    """How many cells a terminal needs for harmless text."""
    return sum(_cells_of(character) for character in text)


def _cells_of(character: str) -> int:
    if character.isascii():
        return 1
    if unicodedata.category(character) in _MARKS:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def cut(text: str, room: int) -> str:
    """The text in at most ``room`` cells; ``…`` stands for what is left out."""
    if cells(text) <= room:
        return text
    return f"{_beginning(text, room - 1)}…" if room > 0 else ""


def cut_path(text: str, room: int) -> str:
    """The same for a path: its end tells more than its beginning."""
    if cells(text) <= room:
        return text
    return f"…{_beginning(text[::-1], room - 1)[::-1]}" if room > 0 else ""


def _beginning(text: str, room: int) -> str:
    used = 0
    for index, character in enumerate(text):
        used += _cells_of(character)
        if used > room:
            return text[:index]
    return text


def pad(text: str, room: int) -> str:
    """The text in exactly ``room`` cells."""
    short = cut(text, room)
    return short + " " * (room - cells(short))


def wrap(text: str, room: int, *, indent: int = 0) -> Iterator[str]:
    """Lines of at most ``room`` cells, broken at spaces where that is possible; the second and further ones begin with
    ``indent`` spaces more than the first one does."""
    rest = text.lstrip(" ")
    margin = " " * min(len(text) - len(rest), max(0, room - 2))
    further = margin + " " * min(indent, max(0, room - 2 - len(margin)))
    while cells(margin + rest) > room:
        head = _beginning(rest, max(1, room - len(margin))) or rest[:1]
        space = len(head) if rest[len(head)] == " " else head.rfind(" ")
        at = space if space > 0 else len(head)
        yield margin + rest[:at].rstrip(" ")
        rest, margin = rest[at:].lstrip(" "), further
        if not rest:
            return
    yield (margin + rest).rstrip(" ")


def wrapped(text: str, room: int, tone: Tone = Tone.PLAIN, *, indent: int = 0) -> Iterator[Line]:
    """The same as lines in one tone."""
    yield from (line(part, tone) for part in wrap(text, room, indent=indent))


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know, and the command that helps: it stands on a line of its own, to be copied."""

    text: str
    tone: Tone = Tone.PLAIN
    command: str = ""

    def lines(self, room: int) -> Iterator[Line]:
        """Both, in lines of at most ``room`` cells."""
        yield from wrapped(self.text, room, self.tone, indent=2)
        if self.command:
            yield from wrapped(f"    {self.command}", room, indent=2)
