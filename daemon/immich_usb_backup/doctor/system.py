"""Users, units, and what is put into the system beside them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from immich_usb_backup.config import Config
from immich_usb_backup.dbus_names import BUS_NAME, MANAGER, OBJECT_PATH
from immich_usb_backup.doctor.checked import Checked, bad, good, unseen
from immich_usb_backup.doctor.machine import Machine, property_of
from immich_usb_backup.errors import INSTALL_AGAIN, BackupError
from immich_usb_backup.policy.schedule import shown, timer_name
from immich_usb_backup.policy.text import printable

INSTALL = f"Put it back: {INSTALL_AGAIN}"
SERVICE = "immich-usb-backup.service"
NOTIFIER = "immich-usb-backup-notifier.path"
AGENT = "immich-usb-backup-agent.service"
DAEMON_USER = "immich-usb-backup"
USERS = (DAEMON_USER, "immich-usb-backup-notify", "immich-usb-backup-dump")
RUNNING = (SERVICE, NOTIFIER, "immich-usb-backup-remind.timer")
"""Units that must be enabled and active."""
ON_DEMAND = (
    *("immich-usb-backup-notifier.service", "immich-usb-backup-dump.service", "immich-usb-backup-remind.service"),
    *(
        "immich-usb-backup-check@x.service",
        "immich-usb-backup-repair@x.service",
        "immich-usb-backup-schedule@x.service",
    ),
)
"""Units that others start."""
_SHOWN = "Id,LoadState,ActiveState,UnitFileState,Result"

_NIXOS = "/run/current-system/sw/share"
PLACES = {
    "udev rule": (
        "90-immich-usb-backup.rules",
        ("/etc/udev/rules.d", "/usr/local/lib/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d"),
    ),
    "polkit rule": (
        "50-immich-usb-backup.rules",
        (
            *("/etc/polkit-1/rules.d", "/usr/local/share/polkit-1/rules.d", "/usr/share/polkit-1/rules.d"),
            f"{_NIXOS}/polkit-1/rules.d",
        ),
    ),
    "polkit actions": (
        "io.github.immich_usb_backup1.policy",
        (
            *("/usr/share/polkit-1/actions", "/usr/local/share/polkit-1/actions", "/etc/polkit-1/actions"),
            f"{_NIXOS}/polkit-1/actions",
        ),
    ),
    "D-Bus policy": (
        "io.github.immich_usb_backup1.conf",
        (
            *("/etc/dbus-1/system.d", "/usr/share/dbus-1/system.d", "/usr/local/share/dbus-1/system.d"),
            f"{_NIXOS}/dbus-1/system.d",
        ),
    ),
}


def accounts(machine: Machine, group: str) -> Iterator[Checked]:
    """The users that the units run as, and the group of those who may give orders."""
    missing = [name for name in USERS if not _has(machine, "passwd", name)]
    if missing:
        text = f"{', '.join(missing)} missing: the units that run as these cannot start"
        yield bad("users", text, INSTALL)
    else:
        yield good("users", f"{', '.join(USERS)} are there")
    yield _group(machine, group)


def _group(machine: Machine, name: str) -> Checked:
    done = machine.run(["getent", "group", name])
    if done is None or done.code:
        return bad("group", f"{name} is missing: only root can ask for backups", INSTALL)
    members = done.out.strip().rpartition(":")[2] or "nobody"
    return good("group", f"{name} is there; in it: {printable(members)}. These and root may ask for backups")


def _has(machine: Machine, database: str, name: str) -> bool:
    done = machine.run(["getent", database, name])
    return done is not None and done.code == 0


def units(machine: Machine) -> Iterator[Checked]:
    """systemd's view of ours."""
    done = machine.run(["systemctl", "show", "--no-pager", f"--property={_SHOWN}", "--", *RUNNING, *ON_DEMAND])
    if done is None or not done.out.strip():
        why = "systemd does not answer here" if done else "there is no systemctl"
        yield unseen("units", why, "Run it on the machine itself, not in a container")
        return
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in done.out.split("\n\n")]
    found = {block.get("Id", ""): block for block in blocks}
    yield from (_running(name, found.get(name, {})) for name in RUNNING)
    yield _on_demand({name: found.get(name, {}) for name in ON_DEMAND})


def _running(name: str, unit: Mapping[str, str]) -> Checked:
    if unit.get("LoadState") == "masked":
        return bad(name, "is masked: it cannot start", f"sudo systemctl unmask {name}")
    if unit.get("LoadState") != "loaded":
        return bad(name, "is not installed", INSTALL)
    wrong = [] if unit.get("UnitFileState") == "enabled" else ["is not enabled: it will not run after the next start"]
    if unit.get("ActiveState") not in {"active", "reloading"}:
        wrong.append(f"does not run ({unit.get('ActiveState', '?')}, {unit.get('Result', '?')})")
    if wrong:
        todo = f"sudo systemctl enable --now {name}; why it does not run: journalctl -u {name} -n 20"
        return bad(name, " and ".join(wrong), todo)
    return good(name, "is enabled and runs")


def _on_demand(found: Mapping[str, Mapping[str, str]]) -> Checked:
    about = "units that are started when needed"
    if missing := [name.replace("@x", "@") for name, unit in found.items() if unit.get("LoadState") != "loaded"]:
        return bad(about, f"{', '.join(missing)} missing", INSTALL)
    if failed := [name for name, unit in found.items() if unit.get("ActiveState") == "failed"]:
        return bad(about, f"{', '.join(failed)} failed", f"See why: journalctl -n 20 -u {' -u '.join(failed)}")
    return good(about, "are installed")


def files(machine: Machine) -> Iterator[Checked]:
    """Rules and policies: in their places, as far as this user may look there."""
    for about, (name, folders) in PLACES.items():
        yield _in_place(machine, about, name, folders)


def _in_place(machine: Machine, about: str, name: str, folders: tuple[str, ...]) -> Checked:
    closed = ""
    for folder in folders:
        try:
            if (machine.path(folder) / name).stat():
                return good(about, f"{folder}/{name} is in place")
        except PermissionError:
            closed = folder
        except OSError:
            continue
    if closed:
        return unseen(about, f"you may not look into {closed}", "Run it with sudo")
    return bad(about, f"{name} is missing: {_MEANING[about]}", INSTALL)


_MEANING = {
    "udev rule": "the service is not started for a disk, and does not see one",
    "polkit rule": "the service may not mount a disk, nor members of the group ask for anything",
    "polkit actions": "nobody but root can ask the service for anything",
    "D-Bus policy": "desktops and commands cannot reach the service",
}


def udev_loaded(machine: Machine) -> Checked:
    """Whether udev works by the rule: the exFAT disks that are here now carry its tag."""
    about = "udev rule at work"
    done = machine.run(["udevadm", "info", "--export-db"])
    if done is None or done.code:
        return bad(about, "udev does not answer", "Is systemd-udevd running? systemctl status systemd-udevd")
    disks = [block for block in done.out.split("\n\n") if _is_candidate(block)]
    if not disks:
        return unseen(about, "no exFAT disk on USB is plugged in", "Plug one in, and run this again")
    if left := [_device(block) for block in disks if not re.search(r"^E: TAGS=.*:immich-usb-backup:", block, re.M)]:
        todo = "sudo udevadm control --reload && sudo udevadm trigger --action=change --subsystem-match=block"
        return bad(about, f"{', '.join(left)} is not tagged: udev has not read the rule", todo)
    return good(about, f"{', '.join(map(_device, disks))} carries its tag")


def _is_candidate(block: str) -> bool:
    return "\nE: ID_FS_TYPE=exfat" in block and "\nE: ID_BUS=usb" in block


def _device(block: str) -> str:
    match = re.search(r"^E: DEVNAME=(.*)$", block, re.MULTILINE)
    return printable(match[1]) if match else "?"


def service_name(machine: Machine) -> Checked:
    """Whether the service is on D-Bus, where commands and desktops find it."""
    about = "D-Bus name"
    place = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner")
    try:
        (there,) = machine.call(*place, signature="s", body=[BUS_NAME])
    except BackupError as error:
        return bad(about, f"the system bus does not answer: {error.message}", "Is D-Bus running? systemctl status dbus")
    if not there:
        todo = (
            "Does the service run? If it does, it may not own its name: journalctl IMMICH_BACKUP_EVENT=no-bus-name -n 1"
        )
        return bad(about, f"nobody answers as {BUS_NAME}: commands and desktops learn nothing", todo)
    return _answering(machine, about)


def _answering(machine: Machine, about: str) -> Checked:
    restart = "sudo systemctl restart immich-usb-backup"
    try:
        running = property_of(machine, BUS_NAME, OBJECT_PATH, MANAGER, "Version")
    except BackupError as error:
        return bad(about, f"the service does not answer: {error.message}", restart)
    if running != machine.version:
        text = f"the service that runs is version {printable(str(running))}, and {machine.version} is installed"
        return bad(about, text, restart)
    return good(about, f"the service answers as {BUS_NAME}, version {running}")


def schedules(machine: Machine, config: Config) -> Iterator[Checked]:
    """The timers of the disks that have a schedule: systemd's generator makes them at ``daemon-reload``."""
    for name in (name for name, disk in config.disk.items() if disk.schedule):
        about, timer = f"schedule of '{printable(name)}'", timer_name(name)
        if timer is None:
            yield bad(
                about, "the name cannot be in the name of a unit", "Put the disk's UUID in its place: [disk.UUID]"
            )
            continue
        done = machine.run(["systemctl", "is-active", "--", timer])
        if done is None or done.out.strip() in {"", "unknown"}:
            yield unseen(about, "systemd does not answer here")
        elif done.out.strip() == "active":
            yield good(about, f"{shown(config.disk[name].schedule)}, and its timer runs")
        else:
            todo = f"sudo systemctl daemon-reload && sudo systemctl start timers.target; else: systemctl status {timer}"
            yield bad(about, "its timer does not run: it is backed up to only when it is plugged in", todo)
