"""Installing everything beside the program, upgrading it, and taking it off again, as a story of steps."""

from __future__ import annotations

import grp
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.installing.machine import (
    DAEMON,
    CannotInstall,
    Machine,
    command_output,
    hidden_from_services,
    missing,
    running_backup,
)
from immich_usb_backup.installing.places import MANUALS, SystemFile, are_here, system_files, system_folder

SETTINGS = Path("/etc/immich-usb-backup")
CONFIG = SETTINGS / "config.toml"
STATE = Path("/var/lib/immich-usb-backup")
_OTHER_STATES = tuple(STATE.with_name(f"{STATE.name}-{name}") for name in ("notifier", "dumps"))
USERS = ("immich-usb-backup", "immich-usb-backup-notify", "immich-usb-backup-dump")
ADMINS = "immich-usb-backup-admins"
OUTBOX, MAILER = "immich-usb-backup-notifier.path", "immich-usb-backup-notifier.service"
REMINDER, DUMPER = "immich-usb-backup-remind.timer", "immich-usb-backup-dump.service"
AGENT = "immich-usb-backup-agent.service"
_OF_TEMPLATES = tuple(f"immich-usb-backup-{name}" for name in ("schedule@*.timer", "schedule@*", "check@*", "repair@*"))
_MOUNTS = tuple(Path(folder, USERS[0]) for folder in ("/media", "/run/media"))
"""UDisks2 makes them for whoever mounts a disk."""
_NATIVE = Path("/var/lib/immich/upload")
_ELSEWHERE = (
    "Put it where they can, for example:\n"
    "  sudo PIPX_HOME=/opt/pipx PIPX_BIN_DIR=/usr/local/bin pipx install immich-usb-backup\n"
    "  sudo UV_TOOL_DIR=/opt/uv UV_TOOL_BIN_DIR=/usr/local/bin UV_PYTHON_INSTALL_DIR=/opt/uv-python uv tool install "
    "immich-usb-backup"
)

_PACKAGED = tuple(Path(folder, DAEMON) for folder in ("/usr/lib/systemd/system", "/lib/systemd/system"))
_TAKE_OFF = (
    "Two would get in each other's way. Take it off first, configuration and history stay:\n"
    "  sudo apt remove immich-usb-backup"
)
_OF_A_PACKAGE = (
    "Install it again:  sudo apt install ./immich-usb-backup_*.deb   Take it off:  sudo apt remove immich-usb-backup\n"
    "On NixOS:  sudo nixos-rebuild switch"
)


@dataclass(frozen=True, slots=True)
class System:
    """``program`` is what the units run; ``start``: enable and start them, too."""

    machine: Machine
    program: Path
    start: bool = True

    # Installing ---------------------------------------------------------------------------------------------

    def install(self) -> int:
        """Install, or upgrade; twice does no harm. ``check`` comes first. Returns the exit code. Raises ``CannotInstall``."""
        for file in system_files(system_folder()):
            self._put(file)
        self._give_an_immich_its_configuration()
        manual = str(system_folder() / MANUALS.pattern)
        self.machine.run(f"Writing the manual pages into {MANUALS.admin}", sys.executable, manual, MANUALS.admin)
        tmpfiles = "/etc/tmpfiles.d/immich-usb-backup.conf"
        self.machine.run(f"Making {STATE} and the outbox in it", "systemd-tmpfiles", "--create", tmpfiles)
        self._tell_services()
        return self._begin()

    @staticmethod
    def refuse_for_a_package() -> None:
        """Raises ``CannotInstall`` where a distribution's package brought the program: it looks after the rest itself."""
        if not are_here(system_folder()):
            text = "This program came in a package, which puts units, rules and policies into place by itself. Nothing was changed"
            raise CannotInstall(ExitCode.UNAVAILABLE, text, hint=_OF_A_PACKAGE)

    def check(self) -> None:
        """Raises ``CannotInstall`` where something is missing or a backup runs, and nothing is to be changed."""
        if hidden := hidden_from_services(self.program):
            raise CannotInstall(ExitCode.UNAVAILABLE, hidden, hint=_ELSEWHERE)
        if other := next(filter(Path.exists, _PACKAGED), None):
            raise CannotInstall(ExitCode.UNAVAILABLE, f"A package is installed already: it has {other}", hint=_TAKE_OFF)
        if lacking := missing():
            words = "\n".join(["Missing on this machine:", *(f"  {text}" for text, _ in lacking)])
            packages = " ".join(package for _, package in lacking)
            hint = f"On Debian and Ubuntu:  sudo apt-get install {packages}"
            raise CannotInstall(ExitCode.UNAVAILABLE, words, hint=hint)
        self.refuse_while_running()

    def refuse_while_running(self) -> None:
        """Raises ``CannotInstall`` where a backup runs."""
        if text := running_backup():
            hint = "Nothing was changed. Run this again when the backup is done."
            raise CannotInstall(ExitCode.NOT_HERE, f"A backup is running: {text}", hint=hint)

    def _put(self, file: SystemFile) -> None:
        self.machine.write(file.admin, file.content(str(self.program)), file.mode)
        if file.admin.parent.name == "sysusers.d":
            text = f"Making the users {' '.join(USERS)}, where they are missing"
            self.machine.run(text, "systemd-sysusers", str(file.admin))

    def _give_an_immich_its_configuration(self) -> None:
        if CONFIG.exists():
            self.machine.say(f"{CONFIG} stays as it is")
        elif _NATIVE.is_dir():
            self.machine.say(f"For the Immich in {_NATIVE.parent}:")
            self.machine.write(CONFIG, (system_folder() / "systemd/config.example.toml").read_bytes())

    def _tell_services(self) -> None:
        self.machine.step("Telling systemd, udev and D-Bus (polkit sees it by itself)", _tell_services)
        self.machine.run("Telling the journal what its messages mean", "journalctl", "--update-catalog", check=False)

    def _begin(self) -> int:
        machine = self.machine
        if not self.start:
            later = f"sudo systemctl enable {DAEMON} && sudo systemctl restart {DAEMON}"
            machine.say(f"Not started, as you asked. Later:  {later}")
            return ExitCode.OK
        text = "Enabling the desktop messages in users' sessions (from the next login on)"
        machine.run(text, "systemctl", "--quiet", "--global", "enable", AGENT)
        if not CONFIG.exists() and not (machine.dry_run and _NATIVE.is_dir()):
            machine.say(_NEXT_STEP)
            return ExitCode.OK
        if self._has_mistakes():
            hint = f"Correct {CONFIG}, then:  sudo systemctl enable --now {DAEMON}"
            raise CannotInstall(ExitCode.CONFIG, "Installed, but not started", hint=hint)
        self._start()
        return ExitCode.OK

    def _has_mistakes(self) -> bool:
        self.machine.say(f"Checking {CONFIG}")
        if self.machine.dry_run:
            return False
        code = subprocess.run([self.program, "check-config"], check=False).returncode
        if code not in {ExitCode.OK, ExitCode.CONFIG}:
            self.machine.say("Something that it names is not there yet (see above). The service starts all the same")
        return code == ExitCode.CONFIG

    def _start(self) -> None:
        machine = self.machine
        enabled = (DAEMON, OUTBOX, REMINDER)
        machine.run(f"Enabling {', '.join(enabled)}", "systemctl", "--quiet", "enable", *enabled)
        if text := running_backup():
            machine.say(f"A backup is running: {text}")
            machine.run("The service begins anew when it is over", *_WHEN_IDLE)
        else:
            machine.run(f"Starting {DAEMON} and {OUTBOX}", "systemctl", "restart", DAEMON, OUTBOX)
        machine.run(f"Beginning {MAILER} anew, where it runs", "systemctl", "try-restart", MAILER)
        # Starting a target once more starts what has come to belong to it: the timers of disks that have a schedule.
        machine.run("Starting the timers", "systemctl", "start", REMINDER, "timers.target")
        machine.run("Letting udev look again at the exFAT disks that are plugged in", *_LOOK_AGAIN)
        machine.say(
            "Done. Plug a disk in that has a folder called immich-server-backups, and watch:  immich-usb-backup status"
        )

    # Taking it off ------------------------------------------------------------------------------------------

    def uninstall(self, *, purge: bool) -> int:
        """Take everything off but the program, what people wrote, and the backups. Raises ``CannotInstall``."""
        self.refuse_while_running()
        machine = self.machine
        machine.step(f"Stopping and disabling {DAEMON}, {OUTBOX} and {MAILER}", _stop_units)
        disable = ("systemctl", "--quiet", "--global", "disable", AGENT)
        machine.run("Disabling the desktop messages in users' sessions", *disable, check=False)
        # From the end: the leave to start units goes before the units that it names.
        for file in reversed(system_files(system_folder())):
            machine.remove(file.admin)
        for page in ("man1/immich-usb-backup.1", "man5/immich-usb-backup.toml.5"):
            machine.remove(Path(MANUALS.admin, page))
        self._tell_services()
        if purge:
            self._purge()
        else:
            others = ", ".join(map(str, _OTHER_STATES))
            kept = f"{SETTINGS}, {STATE}, {others} and the users {' '.join(USERS)}"
            machine.say(f"Kept: {kept}. Remove them with --uninstall --purge")
        machine.say("Done. The backups on your disks are untouched.")
        return ExitCode.OK

    def _purge(self) -> None:
        stamps = Path("/var/lib/systemd/timers").glob("stamp-immich-usb-backup-*")
        for path in (SETTINGS, STATE, *_OTHER_STATES, *stamps):
            self.machine.remove(path)
        for folder in filter(Path.is_dir, _MOUNTS):
            self.machine.run(f"Removing {folder}, unless a disk is mounted there", "rmdir", str(folder), check=False)
        for user in filter(_has_user, USERS):
            self.machine.run(f"Removing the user {user}", "userdel", user)
        if _has_group(ADMINS):
            self.machine.run(f"Removing the group {ADMINS}", "groupdel", ADMINS)


_WHEN_IDLE = ("systemctl", "kill", "--kill-who=main", "--signal=SIGUSR1", DAEMON)
_LOOK_AGAIN = (
    *("udevadm", "trigger", "--action=change", "--subsystem-match=block"),
    "--property-match=ID_FS_TYPE=exfat",
)
_NEXT_STEP = f"""\
Done, but there is no {CONFIG} yet. Next:
  1. Take the example that fits:
       sudo cp {SETTINGS}/config.docker.example.toml {CONFIG}   # Immich in docker compose
       sudo cp {SETTINGS}/config.example.toml {CONFIG}          # Immich installed natively
  2. Put your paths in:   sudo nano {CONFIG}
  3. Check it:            immich-usb-backup check-config
  4. Start it:            sudo systemctl enable --now {DAEMON}"""


def stage(folder: Path, program: str) -> None:
    """Put the files below a folder as a distribution's package has them, and do nothing else."""
    for file in system_files(system_folder()):
        target = folder / file.package
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.content(program))
        target.chmod(file.mode)
    command_output((sys.executable, str(system_folder() / MANUALS.pattern), str(folder / MANUALS.package)), check=True)


def _tell_services() -> None:
    command_output(("systemctl", "daemon-reload"), check=True)
    command_output(("udevadm", "control", "--reload"), check=True)
    bus = "org.freedesktop.DBus"
    path = "/org/freedesktop/DBus"
    command_output(("busctl", "--quiet", "call", bus, path, bus, "ReloadConfig"), check=True)


def _stop_units() -> None:
    units = (REMINDER, OUTBOX, MAILER, DAEMON, DUMPER)
    command_output(("systemctl", "--quiet", "disable", "--now", *units), check=False)
    command_output(("systemctl", "stop", *units, *_OF_TEMPLATES), check=False)
    command_output(("systemctl", "reset-failed", *units, *_OF_TEMPLATES), check=False)


def _has_user(name: str) -> bool:
    return name in {entry.pw_name for entry in pwd.getpwall()}


def _has_group(name: str) -> bool:
    return name in {entry.gr_name for entry in grp.getgrall()}
