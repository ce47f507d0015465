"""What exFAT can hold under a name, and which names it takes for the same one.

Measured with the kernel's driver and from the exFAT specification (7.4, 7.7.3): file names are up to 255 UTF-16 units,
some characters are forbidden, upper and lower case are one. Linux drops dots at the end, Windows dots and spaces;
Windows opens a device instead of a file that is called ``CON``; macOS takes composed and decomposed letters for one.
"""

from __future__ import annotations

import re
from unicodedata import normalize

from immich_usb_backup.policy.upcase import upcase_text

LONGEST = 255
"""UTF-16 units in a name."""

_DEVICE = r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?= *(?:\.|\Z))"
_STARTS_AS_DEVICE = re.compile(_DEVICE, re.ASCII | re.IGNORECASE)
_NOT_KEPT = re.compile(rf'[\x00-\x1f"*/:<>?\\|]|[. ]\Z|\A{_DEVICE}', re.ASCII | re.IGNORECASE)


def units(text: str) -> int:
    """How many UTF-16 units exFAT needs for this text."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def device_word(text: str) -> int:
    """How many characters at the start of a name make Windows open a device, such as 3 for ``con.jpg``; 0 for none."""
    found = _STARTS_AS_DEVICE.match(text)
    return found.end() if found else 0


def can_be_kept(name: bytes) -> bool:
    """Whether this name (one path component) can be stored as it is, and Linux, Windows and macOS then find it."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return bool(text) and not _NOT_KEPT.search(text) and units(text) <= LONGEST


def fold(path: bytes) -> str:
    """Two paths with the same folded form are one file for exFAT."""
    return upcase_text(path.decode("utf-8", "surrogateescape"))


def claims(name: bytes) -> tuple[str, ...]:
    """What a stored name takes up in its folder: two names that share a claim are one for Linux, Windows or macOS."""
    text = name.decode("utf-8", "surrogateescape")
    if text.isascii():
        return (text.upper(),)
    return upcase_text(text), upcase_text(normalize("NFD", text))
