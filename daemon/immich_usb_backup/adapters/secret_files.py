"""Secrets of the notifier, in files: a password, addresses with a secret in them. No error shows what a file says."""

from __future__ import annotations

from pathlib import Path

from immich_usb_backup.adapters import atomic
from immich_usb_backup.errors import DeliveryFailed

THEN_RESTART = "Then: sudo systemctl restart immich-usb-backup-notifier"
_CREDENTIALS = Path("/run/credentials")
_LARGEST = 64_000


def first_line(path: Path, *, what: str) -> str:
    """The first line of a file, which is ``what``. Raises ``DeliveryFailed``."""
    line = _text(path, what).split("\n", 1)[0].rstrip("\r")
    if not line:
        raise _unreadable(path, what, "its first line is empty")
    return line


def lines(path: Path, *, what: str) -> tuple[str, ...]:
    """The lines of a file that are neither empty nor begin with ``#``, without the space around them. Raises
    ``DeliveryFailed``, also where there is none."""
    stripped = (line.strip() for line in _text(path, what).split("\n"))
    found = tuple(line for line in stripped if line and not line.startswith("#"))
    if not found:
        raise _unreadable(path, what, "no line of it says anything")
    return found


def _text(path: Path, what: str) -> str:
    try:
        return atomic.read(path.resolve(), limit=_LARGEST).decode("utf-8")
    except OSError as error:
        problem = error.strerror or "unknown error"
    except UnicodeDecodeError:
        problem = "it is not UTF-8 text"
    except ValueError as error:
        problem = str(error)
    raise _unreadable(path, what, problem)


def _unreadable(path: Path, what: str, problem: str) -> DeliveryFailed:
    where = f"It must be in {path}, and the notifier's user must be allowed to read it."
    if path.is_relative_to(_CREDENTIALS):
        where = f"It must be in /etc/immich-usb-backup/{path.name}, from where systemd hands it over."
    return DeliveryFailed(f"The {what} cannot be read from {path}: {problem}.", hint=f"{where} {THEN_RESTART}")
