"""May this partition be looked at for the marker at all? The daemon asks, whatever the udev rule let through."""

from __future__ import annotations

from collections.abc import Collection

from immich_usb_backup.model import Partition, PartitionSeen, Verdict
from immich_usb_backup.policy.text import printable

FILE_SYSTEM = "exfat"


def judge_seen(seen: PartitionSeen, *, transports: Collection[str]) -> Verdict:
    """What udev's properties say about it, with every reason against it."""
    reasons: list[str] = []
    if seen.transport not in transports:
        allowed = ", ".join(sorted(transports)) or "none"
        reasons.append(f"it is connected by {printable(seen.transport) or 'an unknown bus'}, allowed is {allowed}")
    if seen.has_partitions:
        reasons.append("it is divided into partitions, which are looked at one by one")
    elif seen.file_system != FILE_SYSTEM:
        found = printable(seen.file_system) or "no file system"
        reasons.append(f"it holds {found}, not exFAT")
    elif not seen.uuid:
        reasons.append("its file system has no UUID")
    return Verdict(reasons=tuple(reasons))


def worth_a_line(seen: PartitionSeen) -> bool:
    """Whether a rejection is of interest to a person: something pluggable, or an exFAT file system."""
    pluggable = seen.transport in {"usb", "mmc"} and bool(seen.file_system)
    return seen.file_system == FILE_SYSTEM or pluggable


def judge_partition(seen: PartitionSeen, partition: Partition, *, transports: Collection[str]) -> Verdict:
    """Whether UDisks2 sees the same thing as udev did, with every difference."""
    reasons: list[str] = []
    if partition.device_number != seen.plug_in.device_number:
        reasons.append("UDisks2 speaks of another device")
    if partition.file_system != seen.file_system:
        reasons.append(f"UDisks2 sees {printable(partition.file_system) or 'no file system'} on it")
    if partition.uuid.lower() != seen.uuid.lower():
        reasons.append("UDisks2 sees another file system UUID")
    if partition.connection_bus and not _same_bus(partition.connection_bus, seen.transport, transports):
        reasons.append(f"UDisks2 says that it is connected by {printable(partition.connection_bus)}")
    return Verdict(reasons=tuple(reasons))


def _same_bus(connection_bus: str, transport: str, transports: Collection[str]) -> bool:
    """UDisks2 calls SD readers ``sdio``; a USB card reader is ``usb`` for both."""
    known = {"usb": "usb", "sdio": "mmc"}.get(connection_bus, connection_bus)
    return known == transport or known in transports
