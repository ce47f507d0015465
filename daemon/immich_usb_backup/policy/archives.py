"""Names of the configuration zips on the disk."""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"config-\d{8}T\d{6}Z\.zip")


def _ours(names: Iterable[str]) -> list[str]:
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)


def newest_archive(names: Iterable[str]) -> str | None:
    """The newest zip of ours, or None."""
    return next(iter(_ours(names)), None)


def superfluous_archives(names: Iterable[str], *, keep: int) -> tuple[str, ...]:
    """The zips of ours that may go when the newest ``keep`` stay."""
    return tuple(_ours(names)[keep:])
