"""What exFAT can hold under a name, and which names it takes for the same one.

Measured with the kernel's driver and from the exFAT specification (7.4, 7.7.3): file names are up to 255 UTF-16 units,
some characters are forbidden, upper and lower case are one; Linux also drops dots at the end.
"""

from __future__ import annotations

from functools import lru_cache

from immich_usb_backup.model import TEMPORARY

FORBIDDEN = frozenset('"*/:<>?\\|')
LONGEST = 255


def name_problem(name: bytes) -> str | None:
    """Why exFAT cannot hold this file name (one path component) as it is, or None."""
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "its name is not valid UTF-8"
    if bad := sorted({c for c in text if c in FORBIDDEN}):
        return f"its name contains {' '.join(bad)}"
    if any(ord(c) < 0x20 for c in text):
        return "its name contains a control character"
    if text.endswith("."):
        return "its name ends with a dot"
    if len(text.encode("utf-16-le")) // 2 > LONGEST:
        return f"its name is longer than {LONGEST} characters"
    return None


def path_problem(path: bytes) -> str | None:
    """Why exFAT cannot hold this relative path, or None. Names the folder where the trouble lies in one."""
    *folders, name = path.split(b"/")
    if fold((folders or [name])[0]) == fold(TEMPORARY.encode()):
        return "the backup needs this name for itself"
    for folder in folders:
        if problem := _folder_problem(folder):
            return f"in its folder's name: {problem}"
    return name_problem(name)


@lru_cache(maxsize=4096)
def _folder_problem(folder: bytes) -> str | None:
    return name_problem(folder)


def fold(path: bytes) -> str:
    """Two paths with the same folded form are one file for exFAT. Only for paths without a ``path_problem``.

    exFAT maps single UTF-16 units by an up-case table; characters whose upper case is longer, or which lie outside
    the basic plane, stay as they are.
    """
    text = path.decode("utf-8", "surrogateescape")
    if text.isascii():
        return text.upper()
    return "".join(_up(c) for c in text)


def _up(character: str) -> str:
    upper = character.upper()
    return upper if len(upper) == 1 and ord(character) < 0x10000 and ord(upper) < 0x10000 else character
