"""Before a run: is this disk one of ours? A disk that cannot even be looked at is told of where it is known."""

from __future__ import annotations

import secrets
from dataclasses import replace

from immich_usb_backup.announce import announce
from immich_usb_backup.config import Config
from immich_usb_backup.errors import BackupError, BusLost, DeadlineMissed, DiskGone, UnmountBusy
from immich_usb_backup.events import Event
from immich_usb_backup.marker_look import Looked, look_for_marker
from immich_usb_backup.model import Outcome, Partition, PartitionSeen
from immich_usb_backup.policy.eligibility import judge_partition
from immich_usb_backup.policy.outcome import finding_of
from immich_usb_backup.policy.report import first_report, identify
from immich_usb_backup.policy.text import utc_stamp
from immich_usb_backup.ports import Ports
from immich_usb_backup.trust_look import only_trusted


async def first_look(seen: PartitionSeen, *, config: Config, ports: Ports) -> Looked | None:
    """The disk with its marker; None where there is no marker, where it is not enrolled and must be, or where the disk could
    not be looked at: what there is to tell of that is told here."""
    try:
        partition = await ports.disks.find(seen)
        verdict = judge_partition(seen, partition, transports=config.disks.transports)
        if not verdict.accepted:
            ports.log.say(
                Event.DISK_IGNORED, device=seen.device_node, label=seen.label, reasons="; ".join(verdict.reasons)
            )
            return None
        grace = config.disks.automounter_grace_seconds
        looked = await look_for_marker(partition, grace_seconds=grace, ports=ports)
    except (BackupError, OSError) as error:
        await _unreadable(seen, as_backup_error(error), ports)
        return None
    if looked.marker is None:
        ports.log.say(Event.DISK_UNMARKED, device=seen.device_node, label=seen.label)
        return None
    try:
        return await only_trusted(seen, looked, trust=config.disks.trust, ports=ports)
    except BackupError as error:
        await _unreadable(seen, error, ports)
        return None


async def _unreadable(seen: PartitionSeen, error: BackupError, ports: Ports) -> None:
    """A disk that could not be looked at: a line for a stranger's; a failed run for one that we know."""
    ports.log.say(Event.DISK_UNREADABLE, device=seen.device_node, label=seen.label, message=error.message)
    try:
        name = await ports.history.disk_name(seen.uuid)
    except BackupError as unknown:
        ports.log.say(Event.FATAL, message=unknown.message, hint=unknown.hint)
        return
    if name is None or isinstance(error, DiskGone):
        return
    partition = Partition(
        block_path="",
        drive_path=None,
        device_node=seen.device_node,
        device_number=seen.plug_in.device_number,
        file_system=seen.file_system,
        uuid=seen.uuid,
        label=seen.label,
        connection_bus="",
        size=seen.size,
        read_only=False,
    )
    started = ports.clock.now()
    report = first_report(new_run_id(ports), ports.server, identify(seen, partition, name), started)
    try:
        await ports.history.begin(report, seen.plug_in)
    except BackupError as problem:
        ports.log.say(Event.ANNOUNCE_FAILED, message=problem.message, hint=problem.hint)
    unmounted = not isinstance(error, UnmountBusy | DeadlineMissed | BusLost)
    failed = replace(report, outcome=Outcome.FAILED, findings=(finding_of(error),), safe_to_unplug=unmounted)
    await announce(replace(failed, ended=ports.clock.now()), ports)


def new_run_id(ports: Ports) -> str:
    """A run's name: when it began, and something random."""
    return f"{utc_stamp(ports.clock.now())}-{secrets.token_hex(2)}"


def as_backup_error(error: BackupError | OSError) -> BackupError:
    """What the disk answered, as an error that a user may see."""
    if isinstance(error, BackupError):
        return error
    return BackupError(f"The disk answered: {error.strerror or error}", hint="Plug the disk in again.")
