"""Which configured folders the service's walls would hide, and the drop-in that opens them, and nothing else.

The service may read any file, so its unit hides homes (``ProtectHome=tmpfs``). Paths are text; links are for the caller to
follow first. Source: systemd.exec(5), systemd.syntax(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HIDDEN = ("/home", "/root", "/run/user")
"""What ``ProtectHome=tmpfs`` hides."""


def configured(config: Mapping[str, Any]) -> Iterator[str]:
    """Every path in a configuration, as it came out of TOML, that the service reads. What has the wrong type is skipped: the
    service says what is wrong with it."""
    database, extra, files = config.get("database"), config.get("extra"), config.get("config_files")
    values = [config.get("media_location")]
    values += [database.get("dumps")] if isinstance(database, dict) else []
    values += files if isinstance(files, list) else []
    values += extra.values() if isinstance(extra, dict) else []
    yield from (value for value in values if isinstance(value, str) and value.startswith("/"))


def hidden(paths: Iterable[str]) -> tuple[str, ...]:
    """Those that the walls hide, sorted, each once, and none that lies within another."""
    found = sorted({_plain(path) for path in paths if any(_within(_plain(path), root) for root in HIDDEN)})
    return tuple(path for path in found if not any(path != other and _within(path, other) for other in found))


def drop_in(paths: Iterable[str]) -> str:
    """The text that opens them for reading. Raises ``ValueError`` for a path that systemd cannot be told."""
    wanted = hidden(paths)
    if not wanted:
        return ""
    whole = [path for path in wanted if path in HIDDEN]
    lines = ["ProtectHome=read-only"] if whole else [f"BindReadOnlyPaths={_quoted(path)}" for path in wanted]
    return "\n".join(["# Opened by the paths in /etc/immich-usb-backup/config.toml.", "[Service]", *lines, ""])


def _plain(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")


def _quoted(path: str) -> str:
    """``-``: one that is not there yet keeps nothing from starting."""
    if not path.isprintable() or ":" in path:
        raise ValueError(f"{path!r} cannot be opened: systemd takes no path with a colon or a control character here")
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"-{escaped}"'
