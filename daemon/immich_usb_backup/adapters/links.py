"""Where links lead, and which of them to a place that the service's walls hide. It loads little: systemd's generator uses it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from immich_usb_backup.policy.hidden_paths import hidden, in_a_home

_MOST_LINKS = 40
"""As many as the kernel follows."""


def to_open(paths: Iterable[str]) -> tuple[str, ...]:
    """What must be opened so that these can be read: every step that is hidden. A secret that is not there is none: its folder
    would be made."""
    steps = (step for path in paths for step in every_step(path))
    return tuple(step for step in hidden(steps) if in_a_home(step) or os.path.lexists(step))


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
    parts = [part for part in path.split("/") if part not in {"", "."}]
    for count in range(1, len(parts) + 1):
        here = "/" + "/".join(parts[:count])
        try:
            to = os.readlink(here)
        except (OSError, ValueError):
            continue
        return "/".join([os.path.normpath(f"{here}/../{to}" if not to.startswith("/") else to), *parts[count:]])
    return None
