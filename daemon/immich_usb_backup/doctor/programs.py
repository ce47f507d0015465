"""What the service needs of others: UDisks2, rsync, exFAT and its check."""

from __future__ import annotations

import re

from immich_usb_backup.doctor.checked import Checked, bad, good
from immich_usb_backup.doctor.machine import Machine, property_of
from immich_usb_backup.errors import BackupError
from immich_usb_backup.policy.text import printable

OLDEST_RSYNC = (3, 1)
"""The first with ``--info``."""
_UDISKS = "org.freedesktop.UDisks2"


def udisks(machine: Machine) -> Checked:
    """Whether UDisks2, which mounts the disks, answers."""
    about = "UDisks2"
    try:
        version = property_of(machine, _UDISKS, "/org/freedesktop/UDisks2/Manager", f"{_UDISKS}.Manager", "Version")
    except BackupError as error:
        todo = "sudo apt-get install udisks2; sudo systemctl restart udisks2; else: journalctl -u udisks2 -n 20"
        return bad(about, f"does not answer, so no disk can be mounted: {error.message}", todo)
    return good(about, f"version {printable(str(version))} answers")


def polkit(machine: Machine) -> Checked:
    """Whether polkit, which decides who may do what, answers."""
    name, path = "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority"
    try:
        version = property_of(machine, name, path, f"{name}.Authority", "BackendVersion")
    except BackupError as error:
        text = f"does not answer, so the service may not mount a disk, and only root can ask it: {error.message}"
        return bad("polkit", text, "sudo apt-get install polkitd; sudo systemctl restart polkit")
    return good("polkit", f"version {printable(str(version))} answers")


def rsync(machine: Machine) -> Checked:
    """Whether rsync is there and knows what it is told."""
    done = machine.run(["rsync", "--version"])
    match = re.search(r"version v?(\d+)\.(\d+)(\S*)", done.out) if done else None
    if match is None:
        return bad("rsync", "is not installed: nothing can be copied", "sudo apt-get install rsync")
    version = printable(f"{match[1]}.{match[2]}{match[3]}")
    if (int(match[1]), int(match[2])) < OLDEST_RSYNC:
        return bad("rsync", f"version {version} is too old", "Install version 3.1 or newer")
    return good("rsync", f"version {version}")


def exfat(machine: Machine) -> Checked:
    """Whether this machine can mount exFAT, by the kernel or by FUSE."""
    about = "exFAT"
    try:
        listed = "exfat" in machine.path("/proc/filesystems").read_text().split()
    except OSError:
        listed = False
    module = machine.run(["modinfo", "-n", "exfat"])
    if listed or (module is not None and module.code == 0):
        return good(about, "the kernel has the driver")
    if machine.find("mount.exfat") or machine.find("mount.exfat-fuse"):
        return good(about, "by FUSE: the kernel has no driver, so copying is slower")
    return bad(about, "neither kernel nor FUSE has a driver: no disk can be mounted", "sudo apt-get install exfat-fuse")


def fsck(machine: Machine) -> Checked:
    """Whether a disk that was pulled can be checked."""
    about = "fsck.exfat"
    if machine.find("fsck.exfat"):
        return good(about, "is installed: a disk that was pulled is checked before it is written to")
    text = "is not installed: a disk that was pulled is written to unchecked"
    return bad(about, text, "sudo apt-get install exfatprogs")
