"""Mains or battery: what the kernel's power supplies say, and what people are told about a disk that has to wait."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from immich_usb_backup.model import Disk, Notice, NoticeKind, PlugIn
from immich_usb_backup.policy.text import printable

_ID = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """One folder of ``/sys/class/power_supply``: its files ``type``, ``online``, ``status`` and ``scope``, empty where there is
    no such file."""

    kind: str
    online: str = ""
    status: str = ""
    scope: str = ""


def on_battery(supplies: Iterable[Supply]) -> bool:
    """Whether the machine lives on a battery: one of its own gives power, and nothing else does. A mouse's battery does not
    count, and a machine that shows no battery has mains."""
    ours = [supply for supply in supplies if supply.scope != "Device"]
    batteries = [supply for supply in ours if supply.kind in {"Battery", "UPS"}]
    fed = any(supply.online not in {"", "0"} for supply in ours if supply not in batteries)
    return not fed and any(supply.status == "Discharging" for supply in batteries)


@dataclass(frozen=True, slots=True)
class Words:
    """What people are told: ``what`` tells the kinds apart, ``headline`` follows the disk's name."""

    what: str
    headline: str
    line: str
    todo: tuple[str, ...]


WAITS = Words(
    "waits",
    "waits for mains power: the server runs on battery",
    "The backup begins by itself when mains power is back. Until then nothing is written to the disk.",
    (
        "Leave it plugged in, or eject it before you unplug it: sudo immich-usb-backup eject DISK",
        "To back up all the same: sudo immich-usb-backup backup DISK",
    ),
)
SKIPPED = Words(
    "skipped",
    "was not backed up to: the server runs on battery",
    'Nothing was written to the disk, and no backup follows: on_battery is "skip" in the configuration.',
    ("When mains power is back, plug it in again, or: sudo immich-usb-backup backup DISK",),
)
LEFT = Words(
    "left",
    "was unplugged while it waited for mains power: no backup was made",
    "What was on the disk is as it was.",
    ("Plug it in again.",),
)
CANCELLED = Words(
    "cancelled",
    "waits for mains power no longer: the backup was cancelled",
    "What was on the disk is as it was.",
    ("To back up now: sudo immich-usb-backup backup DISK",),
)


def notice(words: Words, disk: Disk, plug_in: PlugIn, *, server: str, now: datetime) -> Notice:
    """Told once for each plugging-in, though the service may be started again meanwhile."""
    parts = ("mains", words.what, plug_in.boot_id, str(plug_in.disk_sequence), str(plug_in.device_number))
    return Notice(
        notice_id=_ID.sub("_", "-".join(parts)),
        kind=NoticeKind.WAITING,
        server=server,
        time=now,
        headline=f"'{printable(disk.name)}' {words.headline}",
        lines=(words.line,),
        todo=words.todo,
        disk_uuid=disk.uuid,
        disk_name=disk.name,
    )
