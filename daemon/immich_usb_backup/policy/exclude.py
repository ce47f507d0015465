"""Which files a user leaves out of the backup: rsync's exclude patterns, as its manual and its source have them.

rsync itself compares bytes, not letters (``?`` is half an ``é``), and so does this. Patterns become regular expressions
that are compared with ``/`` and the path.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

_ANYTHING = b".*?"
_WITHIN_A_FOLDER = b"[^/]*?"
_LETTER = rb"\\(?P<escaped>.)|(?P<letter>[^\\])"
_TOKEN = re.compile(rb"(?P<stars>\*+)|(?P<one>\?)|(?P<opens>\[[!^]?)|" + _LETTER, re.DOTALL)
_ELEMENT = re.compile(rb"\[:(?P<name>[^]]*):\]|" + _LETTER, re.DOTALL)
_RANGE = re.compile(rb"-(?P<last>\\.|[^]\\])|" + _ELEMENT.pattern, re.DOTALL)

_CLASSES: Mapping[bytes, frozenset[int]] = {
    name: frozenset(members.encode())
    for name, members in (
        (b"alnum", string.ascii_letters + string.digits),
        (b"alpha", string.ascii_letters),
        (b"blank", " \t"),
        (b"cntrl", "".join(map(chr, (*range(0x20), 0x7F)))),
        (b"digit", string.digits),
        (b"graph", string.ascii_letters + string.digits + string.punctuation),
        (b"lower", string.ascii_lowercase),
        (b"print", string.ascii_letters + string.digits + string.punctuation + " "),
        (b"punct", string.punctuation),
        (b"space", string.whitespace),
        (b"upper", string.ascii_uppercase),
        (b"xdigit", string.hexdigits),
    )
}


Matcher = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Excludes:
    """Patterns of what is left out of one folder."""

    _files: Matcher | None = None
    _folders: Matcher | None = None
    _folders_with_content: Matcher | None = None

    @classmethod
    def parse(cls, patterns: Iterable[str]) -> Excludes:
        """Patterns in rsync's syntax, relative to the folder. Raises ``ValueError`` with a sentence for people."""
        rules = [_rule(pattern) for pattern in patterns]
        return cls(
            _matcher(rule for rule in rules if not rule.folders_only),
            _matcher(rules),
            _matcher(rule for rule in rules if rule.with_content),
        )

    def matches(self, path: bytes, *, folder: bool) -> bool:
        """Whether a file or folder is left out. The path is relative, without a slash at its beginning. What is in a
        folder that is left out is not to be asked about."""
        if not folder:
            return self._files is not None and self._files(b"/" + path) is not None
        return (self._folders is not None and self._folders(b"/" + path) is not None) or (
            self._folders_with_content is not None and self._folders_with_content(b"/%b/" % path) is not None
        )

    def __bool__(self) -> bool:
        """Whether anything may be left out."""
        return self._folders is not None


class _Rule(NamedTuple):
    """``with_content``: it ends with ``***``, and a folder is compared with a slash after its name."""

    regex: bytes
    folders_only: bool
    with_content: bool


def _matcher(rules: Iterable[_Rule]) -> Matcher | None:
    joined = b"|".join(rule.regex for rule in rules)
    return re.compile(joined, re.DOTALL).fullmatch if joined else None


def _rule(written: str) -> _Rule:
    _refuse_other_rules(written)
    pattern = written.encode()
    folders_only = pattern.endswith(b"/")
    pattern = pattern.removesuffix(b"/")
    if not pattern.strip(b"/"):
        raise ValueError(f"the pattern {written!r} names nothing")
    try:
        regex = _beginning(pattern) + _regex(pattern.removeprefix(b"/"))
    except _MalformedError as error:
        raise ValueError(f"the pattern {written!r} {error}") from None
    return _Rule(regex, folders_only, pattern.endswith(b"***"))


def _refuse_other_rules(written: str) -> None:
    if not written:
        raise ValueError("a pattern is empty")
    if "\0" in written:
        raise ValueError(f"the pattern {written!r} contains a zero byte")
    if any("\ud800" <= character <= "\udfff" for character in written):
        raise ValueError(f"the pattern {written!r} is not text")
    if written.startswith(("+ ", "- ", "!")):
        raise ValueError(f"the pattern {written!r} is a rule of rsync's; here, each pattern only leaves something out")


def _beginning(pattern: bytes) -> bytes:
    """What may stand before the pattern's first character, in ``/`` and the path."""
    if pattern.startswith(b"/"):
        return b"/"
    if b"**" in pattern:
        return b"" if pattern.startswith(b"**") else b".*/"
    if b"/" in pattern:
        # rsync compares as many names at the end of the path as the pattern has slashes, even where they are in a class.
        return rb".*/(?=[^/]*(?:/[^/]*){%d}\Z)" % pattern.count(b"/")
    return b"(?>.*/)"


class _MalformedError(Exception):
    """The pattern can match nothing: it was meant in another way."""


def _regex(pattern: bytes) -> bytes:
    if not re.search(rb"[*?[]", pattern):
        return re.escape(pattern)
    return b"".join(_tokens(pattern))


def _tokens(pattern: bytes) -> Iterator[bytes]:
    """The parts of a pattern with wildcards, each as a regular expression."""
    at = 0
    while at < len(pattern):
        token = _TOKEN.match(pattern, at)
        if token is None:
            raise _MalformedError("ends with a backslash")
        at = token.end()
        if token["stars"]:
            yield _WITHIN_A_FOLDER if token["stars"] == b"*" else _ANYTHING
        elif token["one"]:
            yield b"[^/]"
        elif token["opens"]:
            members, at = _members(pattern, at)
            yield _any_of(members if token["opens"] == b"[" else set(range(256)) - members)
        else:
            yield re.escape(token["escaped"] or token["letter"])


def _members(pattern: bytes, at: int) -> tuple[set[int], int]:
    """The bytes of the class that begins here, and where it is over."""
    members: set[int] = set()
    previous: int | None = None
    begin = at
    while at == begin or pattern[at : at + 1] != b"]":
        element = (_RANGE if previous is not None else _ELEMENT).match(pattern, at)
        if element is None:
            raise _MalformedError("has a [ without its ]")
        at = element.end()
        more, previous = _element(element, previous)
        members.update(more)
    return members, at + 1


def _any_of(members: set[int]) -> bytes:
    """One byte of these, as a regular expression; never a slash."""
    members = members - {ord("/")}
    return b"[%b]" % b"".join(rb"\x%02x" % byte for byte in sorted(members)) if members else b"(?!)"


def _element(element: re.Match[bytes], previous: int | None) -> tuple[Iterable[int], int | None]:
    """The bytes of one element of a class, and the byte that a range may begin with."""
    found = element.groupdict()
    if found.get("last"):
        assert previous is not None
        return range(previous, found["last"][-1] + 1), None
    if found["name"] is not None:
        if found["name"] not in _CLASSES:
            raise _MalformedError("has an unknown class between [: and :]")
        return _CLASSES[found["name"]], None
    byte = (found["escaped"] or found["letter"])[0]
    return {byte}, byte
