"""The disks and the machine around them: who is trusted, what is due, power, room, time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from immich_usb_backup.adapters.enrolments import ENROLMENTS, EnrolmentsFile
from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.config import Config
from immich_usb_backup.dbus_names import BUS_NAME, GET_DISKS, MANAGER, OBJECT_PATH
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine, property_of
from immich_usb_backup.doctor.system import INSTALL
from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import KnownDisk
from immich_usb_backup.policy.freshness import due, is_late
from immich_usb_backup.policy.text import counted, moment, printable, size
from immich_usb_backup.policy.trust_words import trust_lines

LEAST_ROOM = 500_000_000
"""Bytes in the state directory, which takes the list of each disk and of each dump, and fresh dumps."""
_WITH_SUDO = "Run it with sudo"
_PLUG_IN = "Plug it in. If it is gone for good: sudo immich-usb-backup forget DISK"
_FIRST_YEAR = 2025


def state(machine: Machine, folder: Path) -> Checked:
    """Room for what the service remembers."""
    try:
        free = shutil.disk_usage(machine.path(folder)).free
    except PermissionError:
        return unseen("state directory", f"you may not look at {folder}", _WITH_SUDO)
    except OSError:
        return bad("state directory", f"{folder} is not there: the service cannot remember anything", INSTALL)
    if free < LEAST_ROOM:
        return bad("state directory", f"only {size(free)} free in {folder}", f"Make room: {size(LEAST_ROOM)} is enough")
    return good("state directory", f"{size(free)} free in {folder}")


def clock(machine: Machine) -> Checked:
    """Ages and due dates are worth what the clock is worth."""
    if machine.now.year < _FIRST_YEAR:
        return bad("clock", f"it says {moment(machine.now)}", "Set it: sudo timedatectl set-ntp true")
    place = ("org.freedesktop.timedate1", "/org/freedesktop/timedate1", "org.freedesktop.timedate1")
    try:
        kept = property_of(machine, *place, "NTPSynchronized")
    except BackupError:
        return unseen("clock", f"it says {moment(machine.now)}; whether it is kept right is not known here")
    if not kept:
        return bad(
            "clock", f"it says {moment(machine.now)}, and nothing keeps it right", "sudo timedatectl set-ntp true"
        )
    return good("clock", f"{moment(machine.now)}, kept right by the network")


def trust(machine: Machine, config: Config, state: Path) -> Checked:
    """Who may receive the photos. That everybody may is the default, and no problem; that nobody can, is one."""
    folder = machine.path(state)
    try:
        enrolled = len(EnrolmentsFile(folder / ENROLMENTS).read()) if config.disks.trust == "enrolled" else 0
    except BackupError as error:
        return unseen("trust", error.message, _WITH_SUDO)
    text, todo = trust_lines(config.disks.trust, enrolled)
    if config.disks.trust == "enrolled" and not enrolled:
        return bad("trust", text, todo)
    return Checked(about="trust", result=good("trust", text).result, text=text, todo=todo)


_ON_BATTERY = {
    "wait": "a disk that is plugged in then waits until mains power is back",
    "run": "a disk that is plugged in then is backed up to all the same",
    "skip": "a disk that is plugged in then is not backed up to",
}


def power(machine: Machine, config: Config) -> Checked:
    """What happens without mains power."""
    setting = config.disks.on_battery
    words = f'on battery, {_ON_BATTERY[setting]} (disks.on_battery = "{setting}")'
    try:
        without = machine.on_battery()
    except BackupError:
        return unseen("power", f"whether this machine has mains power now; {words}")
    if without and setting != "run":
        return bad("power", f"the machine runs on battery now; {words}", "Plug it into the mains")
    return good("power", words)


def freshness(machine: Machine, config: Config, state: Path) -> Iterator[Checked]:
    """Each disk that a backup was made to: how old its last good one is."""
    history = SqliteHistory(machine.path(state) / "state.db")
    readable = history.readable()
    if readable is False:
        yield from _as_the_service_says(machine)
        return
    try:
        known = asyncio.run(history.disks()) if readable else ()
    except BackupError as error:
        yield bad("disks", error.message, error.hint)
        return
    if not known:
        yield _none_yet()
    yield from (_age(one, config, machine) for one in known)


def _none_yet() -> Checked:
    todo = "Plug in an exFAT disk with a folder immich-server-backups. docs/how-to/prepare-a-disk.md"
    return bad("disks", "no backup was made yet", todo)


def _age(known: KnownDisk, config: Config, machine: Machine) -> Checked:
    about = f"disk '{printable(known.disk.name)}'"
    when = due(known, config)
    since = f"last good backup {moment(known.good)}" if known.good else "no good backup yet"
    if is_late(known, config, machine.now):
        words = f"{since}: {_days(machine, known)} ago, and it was due {moment(when)}" if when else since
        return bad(about, words, _PLUG_IN)
    return good(about, f"{since}; due again {moment(when)}" if when else f"{since}; it is never due")


def _as_the_service_says(machine: Machine) -> Iterator[Checked]:
    """For a user who may not read the history: the service tells everybody."""
    try:
        (entries,) = machine.call(BUS_NAME, OBJECT_PATH, MANAGER, GET_DISKS)
    except BackupError:
        yield unseen("disks", "you may not read the history, and the service does not answer", _WITH_SUDO)
        return
    known = [entry for entry in entries if entry.get("Known")]
    if not known:
        yield _none_yet()
    for entry in known:
        about = f"disk '{printable(str(entry.get('Name')))}'"
        good_run = int(entry.get("LastGood") or 0)
        text = f"last good backup {moment(datetime.fromtimestamp(good_run, UTC))}" if good_run else "no good backup yet"
        yield bad(about, f"{text}: it is late", _PLUG_IN) if entry.get("Late") else good(about, text)


def _days(machine: Machine, known: KnownDisk) -> str:
    return counted(max(0, (machine.now - (known.good or known.first)).days), "day")
