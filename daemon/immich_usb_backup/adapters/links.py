"""Where links lead. It loads little: systemd's generator uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator

_MOST_LINKS = 40
"""As many as the kernel follows."""


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
        return "/".join([os.path.normpath(os.path.join(os.path.dirname(here), to)), *parts[count:]])
    return None
