"""What people are told about who may receive the photos: in the journal, by mail, on the desktop, by ``doctor``."""

from __future__ import annotations

from datetime import datetime

from immich_usb_backup.model import Finding, Marker, Notice, NoticeKind, PartitionSeen, Severity
from immich_usb_backup.policy.enrolment import Enrolment, Trust
from immich_usb_backup.policy.text import counted, harmless, moment, printable

ANYBODY = (
    "Any disk with the marker immich-server-backups gets all photos and the database: "
    "who can reach a USB port of this server can carry them away"
)
HOW_TO_CHANGE = (
    'To allow only disks that you enroll, put trust = "enrolled" under [disks] in the configuration, and enroll each of '
    "yours: sudo immich-usb-backup enroll DISK"
)


def first_run_note() -> Finding:
    """What the first run on a disk says where every marked disk is backed up to."""
    message = f'{ANYBODY}. To allow only disks that you enroll, set trust = "enrolled" under [disks]'
    return Finding(code="any-marked-disk", severity=Severity.NOTE, message=message)


def trust_lines(trust: str, enrolled: int) -> tuple[str, str]:
    """For ``doctor``: what ``[disks] trust`` means here, and how to change it. ``enrolled`` counts the enrolled disks."""
    if trust != "enrolled":
        return f"{ANYBODY}.", f"{HOW_TO_CHANGE}."
    if not enrolled:
        line = "Only enrolled disks are backed up to, and none is enrolled: nothing will be backed up."
        return line, "Plug your disk in and run: sudo immich-usb-backup enroll DISK --name NAME"
    return f"Only enrolled disks are backed up to; {counted(enrolled, 'disk')} enrolled.", ""


def not_trusted_line(trust: Trust, about: Enrolment | None) -> str:
    """Why a marked disk is not backed up to, in one line."""
    name = f"'{printable(about.name)}'" if about else ""
    if trust is Trust.CLONED:
        return (
            f"Its marker is a copy of that of {name}, whose file system is another one: a copied marker is not enough."
        )
    if trust is Trust.CHANGED and about is not None:
        return (
            f"Its file system's UUID was enrolled as {name} on {moment(about.time)}, but its marker does not hold the "
            "secret: the marker was changed, or this is another disk with that UUID."
        )
    return "It carries the marker immich-server-backups and is not enrolled on this server."


def enroll_command(seen: PartitionSeen) -> str:
    """The command that enrolls a disk. The names that a disk brings along do not get into it."""
    return f"sudo immich-usb-backup enroll {harmless(seen.device_node)}"


def stranger_notice(
    seen: PartitionSeen,
    marker: Marker,
    *,
    trust: Trust,
    about: Enrolment | None,
    known_as: str | None,
    server: str,
    time: datetime,
) -> Notice:
    """What people are told of a marked disk that is not enrolled, once a plug-in. ``known_as``: the name under which a disk
    with its UUID was backed up to before, or None."""
    name = printable(marker.name or seen.label.strip() or seen.uuid)
    lines = [
        f"A disk that calls itself '{name}' ({harmless(seen.device_node)}, UUID {printable(seen.uuid)}) was plugged in.",
        not_trusted_line(trust, about),
    ]
    if known_as is not None:
        lines.append(
            f"A disk with this UUID was backed up to before, as '{printable(known_as)}', without being enrolled."
        )
    lines.append("What it means: nothing was written to it, and no photo has left the server.")
    return Notice(
        notice_id=_notice_id(seen),
        kind=NoticeKind.STRANGER,
        server=server,
        time=time,
        headline=f"'{name}' was not backed up to: it is not an enrolled disk",
        lines=tuple(lines),
        todo=(
            f"If it is your disk, enroll it: {enroll_command(seen)} --name NAME. Then plug it in again.",
            "If not, unplug it, and ask who plugged it in.",
        ),
        disk_uuid=printable(seen.uuid),
        disk_name=name,
    )


def _notice_id(seen: PartitionSeen) -> str:
    """The same as long as the disk stays plugged in, whatever it calls itself."""
    plug_in = seen.plug_in
    boot = "".join(c for c in plug_in.boot_id if c.isascii() and c.isalnum())[:40]
    return f"stranger-{boot}-{plug_in.disk_sequence}-{plug_in.device_number}"
