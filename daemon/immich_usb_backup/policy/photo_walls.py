"""The units that must not see the photos, and the drop-in that hides from them where the configuration has photos.

Each unit hides where photos usually are. With docker compose they may be anywhere, and open to everybody: without this, what has
the network could read them. Source: systemd.exec(5), systemd.syntax(7).
"""

from __future__ import annotations

from collections.abc import Iterable

from immich_usb_backup.policy.hidden_paths import HOMES, outermost, plain, quoted, within

UNITS = tuple(
    f"immich-usb-backup-{name}.service" for name in ("notifier", "dump", "remind", "schedule@", "check@", "repair@")
)
"""All but the one that is for the photos."""

HIDDEN = ("/var/lib/immich", "/srv", "/mnt", "/media", "/run/media", *HOMES)
"""What these units hide by themselves."""

_PROGRAMS = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/nix/store", "/dev", "/proc", "/sys")
_OURS = tuple(f"/var/lib/immich-usb-backup{name}" for name in ("", "-notifier", "-dumps"))
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
_NEEDED = (*_PROGRAMS, *_OURS, *_TEMPORARY, "/etc/immich-usb-backup", "/run/systemd", "/run/dbus", "/run/credentials")


def to_hide(paths: Iterable[str], *, program: str) -> tuple[str, ...]:
    """Those that are not hidden anyway, and that no unit needs itself, such as ``/opt`` where ``program`` lies in it."""
    needed = (*_NEEDED, program)
    return outermost(path for path in map(plain, paths) if not _is_hidden(path) and not _touches(path, needed))


def hiding(paths: Iterable[str]) -> str:
    """The drop-in that hides them; empty where there is nothing to hide. A name that systemd cannot be told is left out."""
    lines = [f"InaccessiblePaths={quoted(path)}" for path in paths if path.isprintable()]
    about = "# Where the photos are, by the paths in /etc/immich-usb-backup/config.toml."
    return "\n".join([about, "[Service]", *lines, ""]) if lines else ""


def _is_hidden(path: str) -> bool:
    return any(within(path, wall) for wall in HIDDEN)


def _touches(path: str, needed: Iterable[str]) -> bool:
    """Whether it holds one of these, or lies in one."""
    return path == "/" or any(within(one, path) or within(path, one) for one in needed)
