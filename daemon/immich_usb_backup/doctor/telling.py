"""How people learn of a backup: mail, desktop, the outbox between the service and both, and the outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from immich_usb_backup.config import Config, Mail
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.doctor.system import AGENT, INSTALL
from immich_usb_backup.policy.text import counted, duration

CREDENTIAL = Path("/etc/immich-usb-backup/smtp-password")
"""Where the notifier's unit takes its credential from."""
STUCK_SECONDS = 3600.0
"""A message that waits for longer is not on its way."""
_WITH_SUDO = "Run it with sudo"
HOW_TO = "docs/how-to/mail.md"


def mail(machine: Machine, mail: Mail | None) -> Checked:
    """Whether mail can be tried at all; that it arrives is shown by a test message only."""
    if mail is None:
        return unseen("mail", "there is no [mail]: nobody gets mail", HOW_TO)
    password = mail.password_file or CREDENTIAL
    if mail.username and (problem := _password_problem(machine.path(password))):
        if problem == "closed":
            return unseen("mail", f"you may not look at {password}", _WITH_SUDO)
        return bad("mail", f"{password} {problem}", HOW_TO)
    text = f"to {', '.join(mail.to)} through {mail.host}:{mail.effective_port}, not tried"
    return unseen("mail", text, "Try it: sudo immich-usb-backup doctor --send-test-mail")


def _password_problem(path: Path) -> str:
    """What is wrong with the file, ``closed`` where this user cannot see it."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return "closed"
    except OSError:
        return "is not there, and mail.username is set"
    return "can be read by everybody: sudo chmod o= on it" if mode & stat.S_IROTH else ""


def outbox(machine: Machine, folder: Path) -> Checked:
    """Messages that nobody fetches."""
    here = machine.path(folder)
    try:
        waiting = [entry.stat().st_mtime for entry in os.scandir(here) if not entry.name.startswith(".")]
    except PermissionError:
        return unseen("outbox", f"you may not look into {folder}", _WITH_SUDO)
    except OSError:
        return bad("outbox", f"{folder} is not there: outcomes cannot be mailed", INSTALL)
    oldest = max((machine.now.timestamp() - when for when in waiting), default=0.0)
    if oldest > STUCK_SECONDS:
        words = counted(len(waiting), "message waits", "messages wait")
        text = f"{words}, the oldest for {duration(oldest)}: nobody was told of these"
        return bad("outbox", text, "journalctl -u immich-usb-backup-notifier -n 20 says why")
    return good("outbox", f"{counted(len(waiting), 'message')} on the way" if waiting else "nothing waits in it")


def desktop(machine: Machine) -> Iterator[Checked]:
    """The agent in users' sessions, and who shows what it says."""
    done = machine.run(["systemctl", "--global", "is-enabled", AGENT])
    if done is None or done.out.strip() not in {"enabled", "disabled", "masked"}:
        yield unseen("desktop agent", "systemd does not say whether it is enabled")
    elif done.out.strip() == "enabled":
        yield good("desktop agent", "is enabled for every user's session, from the next login on")
    else:
        yield bad("desktop agent", "is not enabled: desktops show nothing", f"sudo systemctl --global enable {AGENT}")
    if machine.is_root or not os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        yield unseen("desktop messages", "this is no desktop session", "Run it once without sudo, on the desktop")
        return
    yield from _session(machine)


def _session(machine: Machine) -> Iterator[Checked]:
    active = machine.run(["systemctl", "--user", "is-active", AGENT])
    if active is None or active.out.strip() != "active":
        todo = f"systemctl --user start {AGENT}; why not: journalctl --user -u {AGENT} -n 20"
        yield bad("desktop messages", "the agent does not run in this session", todo)
    names = machine.run(["busctl", "--user", "--no-pager", "list", "--activatable", "--acquired"])
    if names is None or names.code:
        yield unseen("notification server", "the session bus does not answer")
    elif "org.freedesktop.Notifications" in names.out:
        yield good("notification server", "is there")
    else:
        todo = "Install one, such as dunst, or use a desktop that has one"
        yield bad("notification server", "this session has none: nothing can be shown", todo)


def outside(config: Config) -> Iterator[Checked]:
    """What tells other systems. Each is optional, and whether it arrives is for those systems to say."""
    chosen = {"ping": config.ping, "phone push": config.push, "metrics": config.metrics.textfile}
    for about, settings in chosen.items():
        yield good(about, "is set up") if settings else unseen(about, "is not set up, and need not be")
