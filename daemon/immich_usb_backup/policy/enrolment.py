"""Who may receive the photos, where disks must be enrolled: is this the disk that was enrolled, and may that one be?"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from immich_usb_backup.model import Marker, PartitionSeen
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.marker import ENROLLED_MARKER, NAME_LENGTH
from immich_usb_backup.policy.text import printable

SECRET_BYTES = 32
_PURPOSE = b"immich-usb-backup enrolment 1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """A disk that was enrolled on this server: its file system, its name and when that was. ``digest`` (hex) proves its
    secret and does not tell it."""

    uuid: str
    name: str
    time: datetime
    digest: str


class Trust(StrEnum):
    """Whether a marked disk is one that was enrolled here. ``cloned``: its secret is that of another file system;
    ``changed``: its file system was enrolled, and its marker has not the secret."""

    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CLONED = "cloned"
    CHANGED = "changed"


def digest_of(secret: str, uuid: str) -> str:
    """What the server keeps of a secret (hex): it holds for this one file system, and the secret cannot be had from it."""
    return hmac.new(
        bytes.fromhex(secret), _PURPOSE + uuid.upper().encode("utf-8", "replace"), hashlib.sha256
    ).hexdigest()


def judge(secret: str, uuid: str, enrolled: Iterable[Enrolment]) -> tuple[Trust, Enrolment | None]:
    """Whether a marker's secret (hex, or empty) makes the disk trusted, and the enrolment that this is about."""
    known = tuple(enrolled)
    own = next((one for one in known if one.uuid.upper() == uuid.upper()), None)
    if own is not None and fits(secret, own):
        return Trust.TRUSTED, own
    if (original := next((one for one in known if fits(secret, one)), None)) is not None:
        return Trust.CLONED, original
    return (Trust.CHANGED, own) if own is not None else (Trust.UNKNOWN, None)


def fits(secret: str, enrolment: Enrolment) -> bool:
    """Whether this is the secret of that enrolment."""
    return bool(secret) and hmac.compare_digest(digest_of(secret, enrolment.uuid), enrolment.digest)


def name_problem(name: str) -> str:
    """Why a disk cannot be given this name; empty: it can."""
    if not name or name != name.strip():
        return "it is empty, or begins or ends with a space"
    if len(name) > NAME_LENGTH:
        return f"it is longer than {NAME_LENGTH} characters"
    if printable(name) != name:
        return "it has characters that cannot be shown"
    return "it begins with /, as a device does" if name.startswith("/") else ""


def name_for(wanted: str, *, marker: Marker | None, seen: PartitionSeen) -> str:
    """The name that an enrolled disk gets: the wanted one, else the one that it has, else its label or UUID."""
    own = (marker.name if marker else "") or printable(seen.label.strip()) or printable(seen.uuid)
    return wanted or own[:NAME_LENGTH].strip()


def refusal(
    *,
    uuid: str,
    wanted: str,
    marker: Marker | None,
    state: DiskState | None,
    server_id: str,
    taken_over: bool,
    enrolled: Iterable[Enrolment],
) -> tuple[str, str] | None:
    """Why a disk is not enrolled (what is wrong, what to do), or None. ``wanted`` is the name that was asked for, or empty;
    ``taken_over``: somebody has let this server adopt the disk."""
    known = tuple(enrolled)
    others = {one.name for one in known if one.uuid.upper() != uuid.upper()}
    if wanted and (problem := name_problem(wanted)):
        return f"A disk cannot be called '{printable(wanted)}': {problem}", "Give it another name."
    if wanted in others:
        return f"Another enrolled disk is called '{wanted}'", "Give it another name, or forget the other disk."
    if state is not None and state.server_id != server_id and not taken_over:
        return _another_servers(state, uuid)
    ours = taken_over or (state is not None and state.server_id == server_id)
    secret = marker.secret if marker else ""
    if secret and not ours and judge(secret, uuid, known)[0] is Trust.UNKNOWN:
        return _enrolled_elsewhere()
    return None


def _another_servers(state: DiskState, uuid: str) -> tuple[str, str]:
    name = printable(state.server_name) or "another server"
    hint = (
        f"If this server is to use it from now on, run: sudo immich-usb-backup adopt {printable(uuid)}; then enroll it."
    )
    return f"It carries the backup of another server, '{name}'", hint


def _enrolled_elsewhere() -> tuple[str, str]:
    message = "It is enrolled already: on another server, or on this one, which has forgotten it"
    return message, f"If it is to be enrolled here, remove the file {ENROLLED_MARKER} from its root first."
