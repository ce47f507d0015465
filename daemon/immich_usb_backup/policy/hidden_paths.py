"""Which configured paths the service's walls would hide, and the drop-in that opens them, and nothing else.

The service may read any file, so its unit puts empty folders in the place of homes, and hides what is secret on most servers.
Paths are text; links are for the caller to follow first. Source: systemd.exec(5), systemd.syntax(7).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HOMES = ("/home", "/root", "/run/user")
"""In the place of these the unit has empty folders."""

NEVER = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd"),
    *("/etc/immich-usb-backup/smtp-password", "/etc/immich-usb-backup/immich-api-key"),
    *("/etc/immich-usb-backup/database-password", "/etc/immich-usb-backup/ping-url"),
    *("/etc/immich-usb-backup/push-urls", "/var/lib/immich-usb-backup-notifier"),
    *("/var/backups/shadow.bak", "/var/backups/gshadow.bak"),
    *("/run/systemd/resolve", "/run/nscd", "/run/avahi-daemon", "/var/spool/postfix"),
    *("/run/docker.sock", "/run/docker", "/run/containerd", "/run/podman", "/run/crio", "/run/libvirt"),
    *("/sys/kernel/debug", "/sys/kernel/tracing"),
)
"""Hidden whatever the configuration says: passwords, our own secrets, programs that would reach the network for us (the
capability opens their folders, and some of their sockets are open to everybody), and what the kernel shows to root."""

SECRETS = (
    *("/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssl/private"),
    *("/etc/letsencrypt", "/etc/wireguard", "/etc/NetworkManager/system-connections", "/etc/cryptsetup-keys.d"),
    *("/etc/credstore", "/etc/credstore.encrypted", "/var/lib/systemd/credential.secret", "/var/lib/acme"),
    *("/run/credentials", "/run/keys", "/run/secrets", "/run/secrets.d", "/run/agenix", "/run/agenix.d"),
    "/var/lib/sops-nix",
)
"""Hidden unless the configuration names them, or something in them."""

_LIBRARY = ("upload", "library", "profile", "backups")
"""What the service reads in the media location; each may be a link to somewhere else."""


_SECRET_FILES = (
    *(("mail", "password_file"), ("ping", "url_file"), ("push", "urls_file")),
    *(("database", "password_file"), ("database", "api_key_file")),
)


def configured(config: Mapping[str, Any]) -> Iterator[str]:
    """Every path in a configuration, as it came out of TOML, that the service reads. What has the wrong type is skipped: the
    service says what is wrong with it."""
    yield from photos(config)
    database, files = config.get("database"), config.get("config_files")
    values = [database.get("dumps")] if isinstance(database, dict) else []
    yield from _paths([*values, *(files if isinstance(files, list) else [])])


def photos(config: Mapping[str, Any]) -> Iterator[str]:
    """Those of them with photos."""
    media, extra = config.get("media_location"), config.get("extra")
    values = [media, *(f"{media}/{name}" for name in _LIBRARY if isinstance(media, str))]
    yield from _paths([*values, *(extra.values() if isinstance(extra, dict) else ())])


def secret_files(config: Mapping[str, Any]) -> Iterator[str]:
    """Every file in it with a secret of other units."""
    for section, name in _SECRET_FILES:
        values = config.get(section)
        yield from _paths([values.get(name)] if isinstance(values, dict) else [])


def _paths(values: Iterable[Any]) -> Iterator[str]:
    yield from (value for value in values if isinstance(value, str) and value.startswith("/"))


def hidden(paths: Iterable[str]) -> tuple[str, ...]:
    """Those that the walls hide, sorted, each once, and none that lies within another."""
    return outermost(path for path in paths if _wall(plain(path)) is not None)


def outermost(paths: Iterable[str]) -> tuple[str, ...]:
    """Each once, sorted, and none that lies within another."""
    found = sorted({plain(path) for path in paths})
    return tuple(path for path in found if not any(path != other and within(path, other) for other in found))


def refused(paths: Iterable[str]) -> tuple[str, ...]:
    """Those hidden ones that systemd cannot be told."""
    return tuple(path for path in hidden(paths) if not path.isprintable())


def kept_back(paths: Iterable[str]) -> tuple[str, ...]:
    """The secrets that lie in one of these folders and are not named themselves: they stay hidden."""
    named = {plain(path) for path in paths}
    inside = (wall for wall in SECRETS if any(within(wall, path) for path in named))
    return tuple(wall for wall in inside if not any(within(path, wall) for path in named))


def drop_in(paths: Iterable[str], secrets: Iterable[str] = ()) -> str:
    """The text that opens them for reading, but for the refused ones, and hides ``secrets``; empty where there is nothing of
    either."""
    wanted = [path for path in hidden(paths) if path.isprintable()]
    lines = [*_secrets(wanted), *(f"InaccessiblePaths={quoted(path)}" for path in secrets if path.isprintable())]
    lines += map(_line, wanted)
    about = "# Opened and hidden by the paths in /etc/immich-usb-backup/config.toml."
    return "\n".join([about, "[Service]", *lines, ""]) if lines else ""


def _secrets(wanted: Iterable[str]) -> Iterator[str]:
    """The unit's list of what is hidden, without those that are named. One that holds something named becomes empty."""
    opened = {wall for path in wanted if (wall := _wall(path)) in SECRETS}
    if not opened:
        return
    yield "InaccessiblePaths="
    yield "InaccessiblePaths=" + " ".join(f"-{path}" for path in (*NEVER, *SECRETS) if path not in opened)
    yield from (f"TemporaryFileSystem={wall}:ro,mode=0755" for wall in SECRETS if wall in opened.difference(wanted))


def _wall(path: str) -> str | None:
    return next((wall for wall in (*HOMES, *SECRETS) if within(path, wall)), None)


def in_a_home(path: str) -> bool:
    """Whether it lies where the unit has empty folders, which bear what does not exist (yet)."""
    return _wall(plain(path)) in HOMES


def is_roots_alone(path: str) -> bool:
    """Whether it lies in root's home, or is a secret."""
    wall = _wall(plain(path))
    return wall == "/root" or wall in SECRETS


def plain(path: str) -> str:
    """Without ``..``, ``.`` and needless slashes. Text only: what a link would lead to is not looked at."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def is_opened(path: str, text: str) -> bool:
    """Whether a drop-in opens it, or a folder that it lies in."""
    parts = path.split("/")
    return any(_line("/".join(parts[:count])) in text.splitlines() for count in range(2, len(parts) + 1))


def within(path: str, folder: str) -> bool:
    """Whether it is this folder, or lies in it."""
    return path == folder or path.startswith(folder + "/")


def _line(path: str) -> str:
    return f"BindReadOnlyPaths={quoted(path)}"


def quoted(path: str) -> str:
    """As a unit has it. ``-``: one that is not there yet keeps nothing from starting."""
    for special in ("\\", '"', ":"):
        path = path.replace(special, f"\\{special}")
    return f'"-{path.replace("%", "%%")}"'
