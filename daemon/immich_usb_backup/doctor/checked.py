"""What one look at the set-up found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from immich_usb_backup.policy.cells import Line, Part, Tone, line, wrap, wrapped
from immich_usb_backup.policy.text import harmless


class Result(StrEnum):
    """``unseen``: it could not be looked at, or there was nothing to look at."""

    OK = "ok"
    PROBLEM = "problem"
    UNSEEN = "not-checked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """``about`` is what was looked at, ``text`` what was found, ``todo`` how to mend it or how to see more."""

    about: str
    result: Result
    text: str
    todo: str = ""


def good(about: str, text: str) -> Checked:
    """It is as it should be."""
    return Checked(about=about, result=Result.OK, text=text)


def bad(about: str, text: str, todo: str) -> Checked:
    """It is not, and this mends it."""
    return Checked(about=about, result=Result.PROBLEM, text=text, todo=todo)


def unseen(about: str, why: str, todo: str = "") -> Checked:
    """It was not looked at."""
    return Checked(about=about, result=Result.UNSEEN, text=why, todo=todo)


_MARKS = {
    Result.OK: ("ok", Tone.GOOD),
    Result.PROBLEM: ("!!", Tone.BAD),
    Result.UNSEEN: ("--", Tone.DIM),
}
_INDENT, _DEEPER = 4, 6


def lines(one: Checked, room: int) -> Iterator[Line]:
    """For people, in ``room`` cells: what was found, and below it what to do."""
    mark, tone = _MARKS[one.result]
    words = f"not checked: {one.text}" if one.result is Result.UNSEEN else one.text
    first, *more = wrap(f"{mark}  {one.about}: {harmless(words)}", room, indent=_INDENT)
    yield Part(mark, tone), Part(first.removeprefix(mark))
    yield from (line(text) for text in more)
    if one.todo:
        yield from wrapped(" " * _DEEPER + harmless(one.todo), room, indent=_DEEPER)


def summary(found: Iterable[Checked]) -> str:
    """The last line."""
    results = [one.result for one in found]
    problems, left = results.count(Result.PROBLEM), results.count(Result.UNSEEN)
    said = f"{problems} problem{'s' * (problems != 1)}" if problems else "No problem found"
    return f"{said}; {left} not checked." if left else f"{said}."


def as_json(found: Iterable[Checked]) -> list[dict[str, str]]:
    """For programs."""
    return [{"check": one.about, "result": one.result, "text": one.text, "todo": one.todo} for one in found]
