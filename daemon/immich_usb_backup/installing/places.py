"""Every file that a system needs beside the program, and where it goes: the one list for all ways to install.

An administrator's installation goes to /etc and /usr/local, a distribution's package below its prefix (``/usr``, or a path
in the Nix store).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

PROGRAM = "/usr/local/bin/immich-usb-backup"
"""How the units name the program, until they are installed."""
_UNITS = "/usr/local/lib/systemd"
"""Not /etc/systemd: there an administrator could not mask them."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where files that match ``pattern`` go. ``admin`` and ``package`` are folders, the second one below a prefix; ``name``
    is what the file is called there, where it is not called as it is here."""

    pattern: str
    admin: str
    package: str
    name: str = ""


# The users first, as D-Bus drops a policy for users that it does not know. The units before the polkit rule that allows to
# start them: newer versions of systemd would let whoever may start a unit that does not exist make one of that name.
PLACES = (
    Place("systemd/*.sysusers.conf", "/etc/sysusers.d", "lib/sysusers.d", "immich-usb-backup.conf"),
    Place("systemd/*-agent.service", f"{_UNITS}/user", "lib/systemd/user"),
    Place("systemd/*.service", f"{_UNITS}/system", "lib/systemd/system"),
    Place("systemd/*.path", f"{_UNITS}/system", "lib/systemd/system"),
    Place("systemd/*.timer", f"{_UNITS}/system", "lib/systemd/system"),
    Place("systemd/*-generator", f"{_UNITS}/system-generators", "lib/systemd/system-generators"),
    Place("systemd/*.tmpfiles.conf", "/etc/tmpfiles.d", "lib/tmpfiles.d", "immich-usb-backup.conf"),
    Place("systemd/*.rules", "/etc/polkit-1/rules.d", "share/polkit-1/rules.d"),
    Place("systemd/*.policy", "/usr/share/polkit-1/actions", "share/polkit-1/actions"),
    Place("systemd/io.github.*.conf", "/etc/dbus-1/system.d", "share/dbus-1/system.d"),
    Place("udev-rules/*.rules", "/etc/udev/rules.d", "lib/udev/rules.d"),
    Place("systemd/*.catalog", f"{_UNITS}/catalog", "lib/systemd/catalog"),
    Place(
        "completions/*.bash",
        "/usr/local/share/bash-completion/completions",
        "share/bash-completion/completions",
        "immich-usb-backup",
    ),
    Place("completions/_*", "/usr/local/share/zsh/site-functions", "share/zsh/site-functions"),
    Place("completions/*.fish", "/etc/fish/completions", "share/fish/vendor_completions.d"),
    Place("systemd/*.example.toml", "/etc/immich-usb-backup", "share/doc/immich-usb-backup/examples"),
)
MANUALS = Place("scripts/manual.py", "/usr/local/share/man", "share/man")
"""A program that writes the manual pages into the folder that it is given."""


@dataclass(frozen=True, slots=True)
class SystemFile:
    """A file of ours and where it goes."""

    source: Path
    place: Place

    @property
    def name(self) -> str:
        """What it is called where it goes."""
        return self.place.name or self.source.name

    @property
    def admin(self) -> Path:
        """Its path in an administrator's installation."""
        return Path(self.place.admin, self.name)

    @property
    def package(self) -> Path:
        """Its path in a distribution's package, from the prefix on."""
        return Path(self.place.package, self.name)

    @property
    def mode(self) -> int:
        """Its permissions."""
        return 0o755 if fnmatch(self.source.name, "*-generator") else 0o644

    def content(self, program: str) -> bytes:
        """What it holds where the program is ``program``. Raises ``OSError``."""
        return self.source.read_bytes().replace(PROGRAM.encode(), program.encode())


def system_folder() -> Path:
    """Where the files are: a wheel brings them along, else they are in the checkout."""
    package = Path(__file__).resolve().parents[1]
    brought = package / "system"
    return brought if brought.is_dir() else package.parents[1]


def are_here(folder: Path) -> bool:
    """Whether a folder has them: a distribution's package puts them into their places, and brings no others along."""
    return (folder / MANUALS.pattern).is_file()


def system_files(folder: Path) -> tuple[SystemFile, ...]:
    """All of them, in the order in which they are installed."""
    return tuple(
        SystemFile(path, place)
        for place in PLACES
        for path in sorted(folder.glob(place.pattern))
        if _first_match(path.relative_to(folder)) is place
    )


def unplaced(folder: Path) -> Iterator[str]:
    """Files that nobody knows a place for."""
    for name in ("systemd", "udev-rules", "completions"):
        for path in sorted((folder / name).iterdir()):
            if _first_match(path.relative_to(folder)) is None:
                yield str(path.relative_to(folder))


def _first_match(path: Path) -> Place | None:
    return next((place for place in PLACES if fnmatch(str(path), place.pattern)), None)
