"""What fits the word that is being typed in a shell: pure, whatever disks are called."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from immich_usb_backup.policy.text import harmless

_IN_QUOTES_RISKY = set("\"'`$\\!")


@dataclass(frozen=True, slots=True)
class Word:
    """A word that could stand here, and what it is. ``others`` are further words for the same thing, each offered where it
    alone fits what has been typed."""

    text: str
    help: str = ""
    others: tuple[str, ...] = ()


def unquoted(typed: str) -> str:
    """What has been typed, without the quotes and backslashes that keep a shell from splitting it."""
    return re.sub(r"\\(.)|[\"']", lambda match: match[1] or "", typed, flags=re.DOTALL)


def matching(words: Iterable[Word], typed: str) -> list[Word]:
    """Those that begin with what has been typed, as they are to be put there. What no line can hold is left out; and within
    an open quote, what a shell would not take as it stands there."""
    before = typed[: typed.find("=") + 1] if typed.startswith("-") else ""
    word_begun = typed.removeprefix(before)
    begun = unquoted(word_begun)
    risky = _IN_QUOTES_RISKY if word_begun[:1] in {'"', "'"} else set()
    found = []
    for word in words:
        fits = [one for one in (word.text, *word.others) if _fits(one, begun) and not risky & set(one)]
        found += [Word(before + fits[0], word.help)] if fits else []
    return found


def _fits(text: str, begun: str) -> bool:
    return bool(text) and text.startswith(begun) and harmless(text) == text


def disks(entries: Iterable[Mapping[str, Any]]) -> list[Word]:
    """The disks that the service knows, by their names; where two have the same, by their UUIDs."""
    rows = [
        {key: str(entry.get(key) or "") for key in ("Name", "Label", "Uuid", "Device", "Model")} for entry in entries
    ]
    names = [row["Name"] for row in rows]
    return [_disk(row, known=names.count(row["Name"]) == 1) for row in rows]


def _disk(row: Mapping[str, str], *, known: bool) -> Word:
    about = ", ".join(filter(None, (row["Name"], row["Model"], row["Device"] or "not plugged in")))
    keys = ("Name", "Label", "Uuid", "Device") if known else ("Uuid", "Device")
    ways = tuple(dict.fromkeys(row[key] for key in keys if row[key] and harmless(row[key]) == row[key]))
    return Word(ways[0] if ways else "", about, ways[1:])


def runs(entries: Iterable[Mapping[str, Any]]) -> list[Word]:
    """The newest runs, with how they ended."""
    return [Word(str(entry.get("Run") or ""), str(entry.get("Headline") or "")) for entry in entries]
