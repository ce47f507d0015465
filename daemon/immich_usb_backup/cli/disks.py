"""``immich-usb-backup disks``: what is plugged in, which of it would be backed up to, and why not."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.adapters.bus import Bus
from immich_usb_backup.adapters.journal import make_log
from immich_usb_backup.adapters.mounts import mount_points
from immich_usb_backup.adapters.target import DiskTargets
from immich_usb_backup.adapters.udev import UdevDevices
from immich_usb_backup.adapters.udisks import UDisks
from immich_usb_backup.cli.records import disks_of
from immich_usb_backup.cli.status import disk_json
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.marker_look import read_marker
from immich_usb_backup.model import Mount, Partition, PartitionSeen
from immich_usb_backup.policy.ages import ago
from immich_usb_backup.policy.cells import Line, Tone, wrapped
from immich_usb_backup.policy.eligibility import judge_partition, judge_seen, worth_a_line
from immich_usb_backup.policy.text import printable, size
from immich_usb_backup.policy.views import DiskView


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One partition. ``marker``: ``yes``, ``no`` or ``unknown`` (not mounted, so not looked at). ``known`` is what the
    service knows of it, None where it knows nothing or does not answer."""

    seen: PartitionSeen
    marker: str
    name: str
    reasons: tuple[str, ...]
    known: DiskView | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--all", action="store_true", help="also what is no exFAT and not pluggable")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print them. 75 when none is eligible."""
    config = configuration.load(arguments.config) if arguments.config.exists() else Config()
    rows = asyncio.run(_collect(config, everything=arguments.all))
    if arguments.json:
        print(json.dumps([_as_json(row) for row in rows], indent=2))
    else:
        terminal = Terminal()
        terminal.say(*lines(rows, datetime.now(UTC), terminal.columns))
    return ExitCode.OK if any(not row.reasons for row in rows) else ExitCode.NOT_HERE


async def _collect(config: Config, *, everything: bool) -> list[Row]:
    devices = UdevDevices(make_log(level="error"))
    seen = [one for one in devices.now() if (one.file_system or everything) and (everything or worth_a_line(one))]
    bus = await Bus.system()
    try:
        disks, known = UDisks(bus), await _known(bus)
        return [await _row(one, config, disks, known.get(one.uuid)) for one in seen]
    finally:
        await bus.close()


async def _known(bus: Bus) -> Mapping[str, DiskView]:
    """What the service knows, by UUID; nothing where it does not answer: what is plugged in is shown all the same."""
    try:
        return {disk.uuid: disk for disk in await disks_of(bus)}
    except BackupError:
        return {}


async def _row(seen: PartitionSeen, config: Config, disks: UDisks, known: DiskView | None) -> Row:
    reasons = list(judge_seen(seen, transports=config.disks.transports).reasons)
    partition = await disks.look(seen)
    if not reasons:
        if partition is None:
            reasons.append("UDisks2 does not offer its file system")
        else:
            reasons += judge_partition(seen, partition, transports=config.disks.transports).reasons
            reasons += ["it is write-protected"] if partition.read_only else []
    marker, name = await _marker(partition) if partition else ("unknown", "")
    if marker == "no":
        reasons.append("it has no marker immich-server-backups in its root")
    if known is not None and not known.trusted:
        reasons.append("it is not enrolled on this server")
    name = name or (known.name if known is not None and known.known else "")
    return Row(seen=seen, marker=marker, name=name, reasons=tuple(reasons), known=known)


async def _marker(partition: Partition) -> tuple[str, str]:
    """Look only where it is mounted: this command changes nothing."""
    points = mount_points(partition.device_number)
    if not points:
        return "unknown", ""
    mount = Mount(partition=partition, path=points[-1].path, read_only=True, ours=False)
    try:
        marker = await read_marker(mount, DiskTargets(lambda _: lambda: True))
    except (BackupError, OSError):
        return "unknown", ""
    return ("no", "") if marker is None else ("yes", marker.name or "")


def lines(rows: list[Row], now: datetime, columns: int) -> Iterator[Line]:
    """For people: each partition with what it is, and whether it would be backed up to."""
    if not rows:
        yield from wrapped("No exFAT or pluggable disk is here. Plug one in, or see everything with:", columns)
        yield from wrapped("    immich-usb-backup disks --all", columns)
    for row in rows:
        for text, tone in _about(row, now):
            yield from wrapped(text, columns, tone, indent=4)


def _about(row: Row, now: datetime) -> Iterator[tuple[str, Tone]]:
    seen = row.seen
    title = printable(row.name or seen.label or seen.uuid or "no name")
    yield f"{seen.device_node}  '{title}'  {size(seen.size)}  {printable(seen.model)}".rstrip(), Tone.STRONG
    yield f"    label {printable(seen.label) or '-'}, UUID {printable(seen.uuid) or '-'}", Tone.PLAIN
    file_system = printable(seen.file_system) or "no file system"
    yield f"    {file_system} on {printable(seen.transport)}, marker: {_marker_words(row)}", Tone.PLAIN
    if row.known is not None and row.known.known:
        state = {"running": ", is backed up to now", "waiting": ", waits for its turn"}.get(row.known.state, "")
        yield f"    last good backup: {ago(row.known.last_good, now)}{state}", Tone.PLAIN
    for reason in row.reasons:
        yield f"    not eligible: {reason}", Tone.WARN
    if not row.reasons:
        yield "    eligible", Tone.GOOD


def _marker_words(row: Row) -> str:
    return {"unknown": "is looked for when it is plugged in"}.get(row.marker, row.marker)


def _as_json(row: Row) -> dict[str, object]:
    seen = row.seen
    return {
        "device": seen.device_node,
        "label": seen.label,
        "uuid": seen.uuid,
        "name": row.name,
        "model": seen.model,
        "serial": seen.serial,
        "size": seen.size,
        "file_system": seen.file_system,
        "transport": seen.transport,
        "marker": row.marker,
        "eligible": not row.reasons,
        "reasons": list(row.reasons),
        "known": disk_json(row.known) if row.known is not None else None,
    }
