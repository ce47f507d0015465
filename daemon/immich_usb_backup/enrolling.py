"""Enrolling a disk: the marker with a secret is made on it, and nothing else; the server keeps what proves the secret."""

from __future__ import annotations

import secrets
from collections.abc import Collection

from immich_usb_backup.errors import BackupError, EnrolmentRefused, UnmountBusy
from immich_usb_backup.events import Event
from immich_usb_backup.first_look import as_backup_error
from immich_usb_backup.marker_look import Looked, look_for_marker, mount_for_writing
from immich_usb_backup.model import Mount, Partition, PartitionSeen
from immich_usb_backup.policy.eligibility import judge_partition
from immich_usb_backup.policy.enrolment import SECRET_BYTES, Enrolment, digest_of, fits, name_for, refusal
from immich_usb_backup.policy.marker import MarkerText, encode
from immich_usb_backup.policy.text import printable
from immich_usb_backup.ports import Ports
from immich_usb_backup.protect import protected
from immich_usb_backup.release import release


async def enroll(seen: PartitionSeen, wanted: str, *, transports: Collection[str], ports: Ports) -> str:
    """Make the marker, and return the disk's name when it is unmounted. ``wanted`` is the name that is asked for; empty: the
    one that it has. A disk that is trusted already keeps its secret.

    Raises ``EnrolmentRefused``, ``MarkerUnusable``, ``StateDamaged``, and what mounting and writing raise. What is known of
    the disk is written down first: whenever the power fails, the command can be given again.
    """
    try:
        name = await _enroll(seen, wanted, transports, ports)
    except OSError as error:
        raise as_backup_error(error) from error
    ports.log.say(Event.DISK_ENROLLED, disk=name, device=seen.device_node, uuid=seen.uuid)
    return name


async def _enroll(seen: PartitionSeen, wanted: str, transports: Collection[str], ports: Ports) -> str:
    partition = await ports.disks.find(seen)
    _demand_eligible(seen, partition, transports)
    looked = await look_for_marker(partition, grace_seconds=0, ports=ports)
    known = await ports.enrolments.all()
    await _demand_free(seen, looked, wanted, known, ports)
    name = name_for(wanted, marker=looked.marker, seen=seen)
    own = next((one for one in known if one.uuid.upper() == seen.uuid.upper()), None)
    there = MarkerText(looked.marker.name, looked.marker.secret) if looked.marker else MarkerText()
    trusted = own is not None and fits(there.secret, own)
    text = MarkerText(name, there.secret if trusted else secrets.token_hex(SECRET_BYTES))
    if text != there or own is None or own.name != name:
        await _remember(seen, text, ports)
        await _write(looked.partition, encode(text), ports)
    elif looked.automounted:
        await protected(release(looked.partition, ports=ports))
    return name


def _demand_eligible(seen: PartitionSeen, partition: Partition, transports: Collection[str]) -> None:
    reasons = [*judge_partition(seen, partition, transports=transports).reasons]
    reasons += ["it is write-protected"] if partition.read_only else []
    if reasons:
        raise EnrolmentRefused(f"{seen.device_node} cannot be enrolled: {'; '.join(reasons)}")


async def _demand_free(
    seen: PartitionSeen, looked: Looked, wanted: str, known: tuple[Enrolment, ...], ports: Ports
) -> None:
    server_id = await ports.manifests.server_id()
    foreign = looked.state is not None and looked.state.server_id != server_id
    against = refusal(
        uuid=seen.uuid,
        wanted=wanted,
        marker=looked.marker,
        state=looked.state,
        server_id=server_id,
        taken_over=foreign and await _taken_over(seen.uuid, ports),
        enrolled=known,
    )
    if against is not None:
        message, hint = against
        raise EnrolmentRefused(
            f"{seen.device_node} cannot be enrolled. {message}. Nothing was written to it", hint=hint
        )


async def _taken_over(uuid: str, ports: Ports) -> bool:
    """Whether somebody has let this server adopt the disk."""
    manifest = await ports.manifests.open(uuid)
    try:
        return (await manifest.record()).adopt
    finally:
        await protected(manifest.close())


async def _remember(seen: PartitionSeen, text: MarkerText, ports: Ports) -> None:
    digest = digest_of(text.secret, seen.uuid)
    name = text.name or printable(seen.uuid)
    await ports.enrolments.put(Enrolment(uuid=seen.uuid, name=name, time=ports.clock.now(), digest=digest))


async def _write(partition: Partition, content: bytes, ports: Ports) -> None:
    """Mount, write, unmount. Raises ``UnmountBusy`` where the marker is made and the disk cannot be let go of."""
    mounts: list[Mount] = []

    async def mount() -> None:
        mounts.append(await mount_for_writing(partition, ports))

    try:
        await protected(mount())
        await protected(ports.targets.write_marker(mounts[0], content))
    except BaseException:
        if mounts:
            await protected(release(partition, ports=ports))
        raise
    try:
        await protected(release(partition, ports=ports))
    except UnmountBusy as error:
        message = f"The disk is enrolled, but could not be unmounted: {error.message}"
        raise UnmountBusy(message, hint=error.hint) from error


async def clean_up(ports: Ports) -> None:
    """Unmount what an enrolling that was cut off left mounted, and remove what it left half written. Nothing here keeps the
    service from backing up. Raises ``StateDamaged``."""
    for enrolment in await ports.enrolments.all():
        try:
            await _clean_up(enrolment, ports)
        except (BackupError, OSError) as error:
            ports.log.say(Event.FATAL, message=str(error), hint=getattr(error, "hint", ""))


async def _clean_up(enrolment: Enrolment, ports: Ports) -> None:
    partition = await ports.disks.left_mounted(enrolment.uuid)
    if partition is None:
        return
    mount = await ports.disks.mount(partition, read_only=False)
    if not mount.read_only:
        await ports.targets.clear_marker_temporary(mount)
        ports.log.say(Event.ENROLMENT_CUT_OFF, disk=enrolment.name)
    await release(partition, ports=ports)
