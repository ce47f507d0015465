"""Under which name each file and folder of one folder is stored, where exFAT cannot hold the server's name."""

from __future__ import annotations

import re
from base64 import b32encode
from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import sha256
from itertools import count

from immich_usb_backup.policy.names import LONGEST, can_be_kept, claims, device_word, units

_ENDING = re.compile(r"(?<=.)\.\w{1,15}\Z", re.DOTALL)
"""What a program knows a file by. Anything longer, or with a space, is a part of the name."""

_PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"*:<>?\\|')
"""Bytes that a name may hold anywhere but at its end, and the ``/`` that we put between two names."""

_BAD_ENDS = (b"./", b" /", b"//")
_PLAIN_DEVICE = re.compile(rb"/(?:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|COM[0-9]|LPT[0-9])[ ./]")
_UNWANTED = re.compile(r'[\x00-\x1f"*/:<>?\\|\udc80-\udcff]')


def stored_names(
    wanted: Iterable[bytes],
    known: Mapping[bytes, bytes],
    occupied: Iterable[bytes] = (),
    *,
    reserved: frozenset[bytes] = frozenset(),
) -> dict[bytes, bytes]:
    """Each of the ``wanted`` names (the server's, of one folder) with the name that it has, or gets, on the disk.

    ``known`` are names that lie on the disk, with their stored names: they keep them. ``occupied`` are further stored
    names that are taken, and ``reserved`` those that the backup needs for itself. A name that can be kept and is not
    taken stays as it is; the others follow in the order of their bytes. The order of ``wanted`` makes no difference.
    """
    names = dict.fromkeys(wanted)
    new = [name for name in names if name not in known]
    placed = _placed(new, {*known.values(), *occupied, *reserved}) if new else {}
    return {name: known[name] if name in known else placed[name] for name in names}


def _placed(new: list[bytes], taken: set[bytes]) -> Mapping[bytes, bytes]:
    if _all_stay(new, taken):
        return dict(zip(new, new, strict=True))
    occupied = {claim for name in taken for claim in claims(name)}
    stored: dict[bytes, bytes] = {}
    for name in sorted(filter(can_be_kept, new)):
        if occupied.isdisjoint(claimed := claims(name)):
            stored[name] = name
            occupied.update(claimed)
    for name in sorted(name for name in new if name not in stored):
        stored[name] = _first_free(name, occupied)
        occupied.update(claims(stored[name]))
    return stored


def _all_stay(new: Collection[bytes], taken: Collection[bytes]) -> bool:
    """Whether it shows at a glance that no name needs another: all are looked at together, and accents are not."""
    joined = b"/%b/" % b"/".join(new).upper()
    others = b"/".join(taken).upper()
    if not others.isascii() or not _all_plain(joined) or max(map(len, new)) > LONGEST:
        return False
    folded = set(joined[1:-1].split(b"/"))
    return len(folded) == len(new) and folded.isdisjoint(others.split(b"/"))


def _all_plain(joined: bytes) -> bool:
    """Whether every name between two ``/`` can be kept; they are in upper case."""
    return not (
        joined.translate(None, _PLAIN) or any(end in joined for end in _BAD_ENDS) or _PLAIN_DEVICE.search(joined)
    )


def _first_free(name: bytes, occupied: set[str]) -> bytes:
    return next(other for other in _altered(name) if occupied.isdisjoint(claims(other)))


def _altered(name: bytes) -> Iterator[bytes]:
    """Names that a person takes for this one, best first. They follow from the name alone."""
    stem, ending = _cleaned(name)
    mark = "~" + b32encode(sha256(name).digest()[:5]).decode().lower()
    for attempt in count(1):
        tail = (mark if attempt == 1 else f"{mark}-{attempt}") + ending
        yield (_cut(stem, tail) + tail).encode()


def _cleaned(name: bytes) -> tuple[str, str]:
    """A name's stem and its ending (with the dot, or empty), without anything that exFAT or a system refuses."""
    text = _UNWANTED.sub("_", name.decode("utf-8", "surrogateescape"))
    body = text.rstrip(". ")
    found = _ENDING.search(body)
    cut = found.start() if found else len(body)
    word = device_word(text)
    stem = f"{body[:word]}_{body[word:cut]}" if word else body[:cut]
    return stem + "_" * (len(text) - len(body)), body[cut:]


def _cut(text: str, tail: str) -> str:
    """As much of the text's beginning as fits before ``tail`` into exFAT's UTF-16 units, and into the bytes that ext4 and its
    like have for a name: a plain copy of the disk must be possible. Without half a character."""
    fits = text.encode("utf-16-le")[: 2 * (LONGEST - units(tail))].decode("utf-16-le", "ignore")
    return fits.encode()[: LONGEST - len(tail.encode())].decode("utf-8", "ignore")
