"""Where links lead, and which of them to a place that the service's walls hide. It loads little: systemd's generator uses it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from immich_usb_backup.policy.hidden_paths import hidden, in_a_home, is_roots_alone

_MOST_LINKS = 40
"""As many as the kernel follows."""


def to_open(paths: Iterable[str]) -> tuple[str, ...]:
    """What must be opened so that these can be read: every step that is hidden. A secret that is not there is none: its folder
    would be made. To root's home and to secrets only root's links lead: Immich may write to its library."""
    steps = (step for path in paths for step in _trusted_steps(path))
    return tuple(step for step in hidden(steps) if in_a_home(step) or os.path.lexists(step))


def _trusted_steps(path: str) -> Iterator[str]:
    is_roots = True
    for step in every_step(path):
        if is_roots or not is_roots_alone(step):
            yield step
        is_roots = is_roots and _link_owner(step) in {None, 0}


def _link_owner(path: str) -> int | None:
    """Who made the first link on the way; None where there is none."""
    for here in _folders(path):
        try:
            found = os.lstat(here)
        except (OSError, ValueError):
            return None
        if stat.S_ISLNK(found.st_mode):
            return found.st_uid
    return None


def every_step(path: str) -> Iterator[str]:
    """An absolute path, and what it becomes as one link after the other is followed. Where something is not there, or may not
    be looked at, the rest is taken as it is."""
    yield path
    for _ in range(_MOST_LINKS):
        following = _one_link(path)
        if following is None:
            return
        path = following
        yield path


def _one_link(path: str) -> str | None:
    """The path with its first link replaced by what that says; None where there is no link."""
    for here in _folders(path):
        try:
            to = os.readlink(here)
        except (OSError, ValueError):
            continue
        rest = _parts(path)[len(_parts(here)) :]
        return "/".join([os.path.normpath(f"{here}/../{to}" if not to.startswith("/") else to), *rest])
    return None


def _folders(path: str) -> Iterator[str]:
    """Each folder on the way, and the path itself."""
    parts = _parts(path)
    yield from ("/" + "/".join(parts[:count]) for count in range(1, len(parts) + 1))


def _parts(path: str) -> list[str]:
    """The names in it."""
    return [part for part in path.split("/") if part not in {"", "."}]
