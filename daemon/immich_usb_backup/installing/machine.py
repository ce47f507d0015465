"""The machine that is installed on: what it must have, what runs on it, and each change said before it is made."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from immich_usb_backup.errors import BackupError
from immich_usb_backup.exit_codes import ExitCode

DAEMON = "immich-usb-backup.service"
NIXOS = Path("/etc/NIXOS")
"""A file that is on every NixOS, and nowhere else."""
_SECONDS = 120.0
_UDISKS = "/usr/share/dbus-1/system-services/org.freedesktop.UDisks2.service"


class CannotInstall(BackupError):
    """Nothing was changed, or what follows cannot be done. ``exit_code`` is what the command ends with."""

    code = "cannot-install"

    def __init__(self, exit_code: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class Machine:
    """Says each change, and makes it unless ``dry_run``."""

    def __init__(self, *, dry_run: bool, say: Callable[[str], None] = print) -> None:
        self.dry_run = dry_run
        self.say = say

    def step(self, text: str, work: Callable[[], object]) -> None:
        """Say it, then do it."""
        self.say(text)
        if not self.dry_run:
            work()

    def run(self, text: str, *command: str, check: bool = True) -> None:
        """Say it, then run a program. Raises ``CannotInstall`` where it fails and that matters."""
        self.step(text, lambda: command_output(command, check=check))

    def write(self, path: Path, content: bytes, mode: int = 0o644) -> None:
        """Have a file hold exactly this."""
        if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
            self.say(f"{path} is up to date")
            return
        self.step(f"Writing {path}", lambda: _write(path, content, mode))

    def remove(self, path: Path) -> None:
        """Remove a file or a folder, where there is one."""
        if path.is_symlink() or path.is_file():
            self.step(f"Removing {path}", path.unlink)
        elif path.is_dir():
            self.step(f"Removing {path}", lambda: shutil.rmtree(path))


def _write(path: Path, content: bytes, mode: int) -> None:
    """Beside, then over it: nobody reads half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_bytes(content)
    beside.chmod(mode)
    beside.replace(path)


def command_output(command: Sequence[str], *, check: bool) -> str:
    """What a program says. Raises ``CannotInstall`` where it is missing or fails, unless not ``check``."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False, errors="replace")
    except (OSError, subprocess.TimeoutExpired) as error:
        if check:
            raise CannotInstall(ExitCode.UNAVAILABLE, f"{command[0]} could not be run: {error}") from error
        return ""
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise CannotInstall(ExitCode.UNAVAILABLE, f"{' '.join(command)} failed ({done.returncode}): {said}")
    return done.stdout


def refuse_on_nixos() -> None:
    """Raises ``CannotInstall`` there: its next rebuild would undo half of it, and its package has nothing to install from."""
    if NIXOS.exists():
        hint = "services.immich-usb-backup.enable = true; and a rebuild. See docs/how-to/nixos.md"
        text = "This is NixOS, where its configuration says what is installed. Nothing was changed."
        raise CannotInstall(ExitCode.UNAVAILABLE, text, hint=hint)


def running_backup() -> str:
    """What the service says of the backup that it makes; empty: none goes on."""
    show = ("systemctl", "show", "--property=ActiveState,StatusText", DAEMON)
    values = dict(line.partition("=")[::2] for line in command_output(show, check=False).splitlines())
    text = values.get("StatusText", "")
    goes_on = values.get("ActiveState") in {"active", "reloading", "deactivating"}
    return text if goes_on and text and not text.startswith("Idle") else ""


def missing() -> list[tuple[str, str]]:
    """What this machine lacks: in words, and Debian's packages for it."""
    wanted: list[tuple[str, str, Callable[[], bool]]] = [
        ("systemd, running this machine", "systemd", lambda: Path("/run/systemd/system").is_dir()),
        ("udev", "udev", lambda: bool(shutil.which("udevadm"))),
        ("D-Bus with its system bus", "dbus", lambda: Path("/run/dbus/system_bus_socket").exists()),
        ("rsync", "rsync", lambda: bool(shutil.which("rsync"))),
        ("UDisks2", "udisks2", lambda: Path(_UDISKS).exists()),
        ("polkit with JavaScript rules (0.106 or newer)", "polkitd", _has_polkit_rules),
        ("exFAT, in the kernel or by FUSE", "exfatprogs exfat-fuse", _has_exfat),
    ]
    return [(words, packages) for words, packages, there in wanted if not there()]


def _has_exfat() -> bool:
    try:
        known = "exfat" in Path("/proc/filesystems").read_text().split()
    except OSError:
        known = False
    helpers = ("mount.exfat", "mount.exfat-fuse")
    return known or any(map(shutil.which, helpers)) or bool(command_output(("modinfo", "exfat"), check=False))


def _has_polkit_rules() -> bool:
    """They came with 0.106; Debian and Ubuntu kept 0.105 for a long time."""
    words = command_output(("pkaction", "--version"), check=False).split()
    try:
        return bool(words) and tuple(map(int, words[-1].split("."))) >= (0, 106)
    except ValueError:
        return False


def hidden_from_services(program: Path) -> str:
    """Why the services' users cannot run a program, or an empty text."""
    real = Path(os.path.realpath(program))
    for path in (program, real, *real.parents):
        if path.parts[:2] in {("/", "home"), ("/", "root")}:
            return f"{path} lies in somebody's home, which the services cannot see"
        if path.exists() and not path.stat().st_mode & 0o005:
            return f"{path} cannot be read by other users"
    return ""
