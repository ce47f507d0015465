"""The values that flow through a backup: frozen, without behaviour, without I/O.

Sizes are bytes, durations seconds, times timezone-aware datetimes in UTC, file names ``bytes`` where they come
from a disk (Linux file names are bytes) and ``str`` where a person reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

BACKUP_FOLDER = "immich-server-backups"
"""The marker's name and the only folder on the disk that is ever written to."""


TEMPORARY = ".partial"
"""Folders of this name on the disk hold files that are not whole yet; they are emptied by the next run."""


IN_FLIGHT = ".in-flight"
"""Folder on the disk with a list for each library folder: the files that are being copied. See ``policy.in_flight``."""


class Outcome(StrEnum):
    """How a run ended. Only ``ok`` means: everything that was asked for is on the disk."""

    OK = "ok"
    PARTIAL = "partial"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Severity(StrEnum):
    """What a finding does to the outcome: nothing, makes it partial, makes it failed or interrupted."""

    NOTE = "note"
    PARTIAL = "partial"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class Mode(StrEnum):
    """How a run finds out what is to be copied: by sizes and times, by the content of both sides, or not at all
    (everything is copied again, and then compared)."""

    QUICK = "quick"
    VERIFY = "verify"
    FULL = "full"


class Rereading(StrEnum):
    """How much a run reads back of what was on the disk before: nothing (``none``); as the configuration allows in ``turn``;
    without a limit in time all that is ``due``; ``all``, whenever it was read last."""

    NONE = "none"
    TURN = "turn"
    DUE = "due"
    ALL = "all"


class Trigger(StrEnum):
    """Why a run began: a disk was plugged in, a person asked for it, or its schedule did."""

    PLUG_IN = "plug-in"
    ASKED = "asked"
    SCHEDULE = "schedule"


class Health(StrEnum):
    """What a look at an exFAT file system found. ``dirty``: it was not unmounted, and its structure is sound;
    ``unknown``: it could not be checked."""

    CLEAN = "clean"
    DIRTY = "dirty"
    REPAIRED = "repaired"
    DAMAGED = "damaged"
    UNKNOWN = "unknown"


class Stage(StrEnum):
    """The steps of a run, in their order."""

    CHECK = "check"
    MOUNT = "mount"
    DATABASE = "database"
    CONFIG = "config"
    PLAN = "plan"
    COMPARE = "compare"
    UPLOAD = "upload"
    LIBRARY = "library"
    PROFILE = "profile"
    EXTRA = "extra"
    FLUSH = "flush"
    PROVE = "prove"
    UNMOUNT = "unmount"


COPY_STAGES = (Stage.UPLOAD, Stage.LIBRARY, Stage.PROFILE, Stage.EXTRA, Stage.COMPARE, Stage.PROVE)
"""The steps whose progress is counted in bytes."""

LIBRARY_STAGES = (Stage.UPLOAD, Stage.LIBRARY, Stage.PROFILE)
"""The folders with originals, in the order in which a file that Immich moves meanwhile is still met."""


class DeviceAction(StrEnum):
    """What udev said. ``present`` is ours: the device was there when we looked."""

    ADD = "add"
    CHANGE = "change"
    REMOVE = "remove"
    PRESENT = "present"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlugIn:
    """One plugging-in of one disk: a new one gets a new sequence number, a reboot a new boot id."""

    boot_id: str
    disk_sequence: int
    device_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionSeen:
    """A block device with its udev properties as they were at the moment of the event.

    ``transport`` is ``usb``, ``mmc``, ``loop`` or what udev calls the bus. Text may be hostile: it comes from the disk.
    """

    action: DeviceAction
    device_node: str
    plug_in: PlugIn
    transport: str
    file_system: str
    uuid: str
    label: str = ""
    model: str = ""
    serial: str = ""
    size: int = 0
    has_partitions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """The same partition as UDisks2 sees it. ``block_path`` and ``drive_path`` are D-Bus object paths."""

    block_path: str
    drive_path: str | None
    device_node: str
    device_number: int
    file_system: str
    uuid: str
    label: str
    connection_bus: str
    size: int
    read_only: bool
    mount_points: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A mounted partition. ``ours`` is false where a desktop's automounter had mounted it before us."""

    partition: Partition
    path: str
    read_only: bool
    ours: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The opt-in marker that lies in the root of a disk.

    ``entry`` is its name there; ``is_folder`` tells the folder from a file; ``name`` is what a marker file calls the disk;
    ``secret`` (hex) is what an enrolled disk is known by, empty where there is none: never shown.
    """

    entry: str
    is_folder: bool
    name: str | None = None
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """How messages and the history speak of a disk. ``name`` is the marker's name, else the label, else the UUID."""

    name: str
    uuid: str
    label: str
    model: str
    serial: str
    size: int
    device_node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that a run noticed: what happened, and what the user can do about it.

    ``code`` is stable and documented; ``items`` names the files concerned (at most a few hundred, ``count`` has all).
    """

    code: str
    severity: Severity
    message: str
    hint: str = ""
    items: tuple[str, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageReport:
    """What one stage did. ``files`` and ``bytes`` count what was written to the disk, not what was already there."""

    stage: Stage
    seconds: float
    files: int = 0
    bytes: int = 0
    summary: str = ""


class Restorable(StrEnum):
    """Whether a disk brings everything back that its database dump names."""

    YES = "yes"
    EXCEPT = "except"
    NO = "no"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskVerdict:
    """What a disk is worth on the day that the server dies: its newest dump held against the files that lie on it.

    Counts are files. ``assets`` are those of the dump whose files lie in the media location and are not in the trash;
    ``present`` of them are on the disk and not known to be damaged, ``proven`` of these were read back from it with the
    SHA-1 that Immich has (or ours of the copy where it has none); ``moved`` lie under another path than the dump says,
    where Immich moved them after it, and have the dump's SHA-1. ``missing``: not on the disk; ``missing_on_server`` of them
    are not on the server either. ``changed``: the content is not that of the upload, on either side;
    ``rotten_on_server``: the server's file has changed by itself, the disk's is good;
    ``rotten_on_disk``: the other way round, and not mended. ``external`` assets lie outside the media location,
    ``external_covered`` of them in a configured extra folder; ``extra_folders`` are the lines of configuration that would
    cover the rest. ``unknown`` files are on the disk and not in the dump. ``files`` are all files on the disk,
    ``files_proven`` of them were ever read back; ``oldest_proof`` is when the one that was read back longest ago was.
    ``exceptions`` name what would not come back (at most some hundreds, ``exception_count`` has all); ``reasons`` say
    why a disk is not ``Restorable.YES``.
    """

    restorable: Restorable
    dump: str = ""
    dump_time: datetime | None = None
    immich: str = ""
    assets: int = 0
    present: int = 0
    proven: int = 0
    moved: int = 0
    missing: int = 0
    missing_on_server: int = 0
    changed: int = 0
    rotten_on_server: int = 0
    rotten_on_disk: int = 0
    external: int = 0
    external_covered: int = 0
    extra_folders: tuple[str, ...] = ()
    trashed: int = 0
    unknown: int = 0
    files: int = 0
    files_proven: int = 0
    oldest_proof: datetime | None = None
    reasons: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    exception_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Everything about one run, as history keeps it and notifiers tell it. ``plugged_in``: whether the disk was still there
    when it ended (None: not known); ``schedule``: the disk's, as systemd takes it, empty where it has none."""

    run_id: str
    server: str
    disk: Disk
    started: datetime
    ended: datetime
    outcome: Outcome
    safe_to_unplug: bool
    powered_off: bool = False
    findings: tuple[Finding, ...] = ()
    stages: tuple[StageReport, ...] = ()
    dump: str | None = None
    dump_time: datetime | None = None
    free_bytes: int | None = None
    verdict: DiskVerdict | None = None
    mode: Mode | None = None
    trigger: Trigger = Trigger.PLUG_IN
    plugged_in: bool | None = None
    schedule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownDisk:
    """What the history remembers of a disk that a run was made on. ``disk`` is how it was at its newest run, ``last`` is that
    run's report; ``good`` is when the newest run that ended with ``Outcome.OK`` did (None: there was none); ``first`` is
    when its first run began; ``verdict`` is the newest one that there is."""

    disk: Disk
    last: RunReport
    first: datetime
    good: datetime | None = None
    verdict: DiskVerdict | None = None


class NoticeKind(StrEnum):
    """What a notice is about: disks that should be plugged in again, a disk that is not trusted, a run that waits, what
    was missing is there again, or nothing but whether it arrives (``test``: by mail only)."""

    REMINDER = "reminder"
    STRANGER = "stranger"
    WAITING = "waiting"
    TEST = "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that people are told outside of a run. The texts are plain and on clean lines: ``lines`` are what it is,
    ``todo`` is what to do. The same ``notice_id`` (letters, digits, ``.``, ``_``, ``-``) is told once. ``disk_uuid`` and
    ``disk_name`` where it is about one disk."""

    notice_id: str
    kind: NoticeKind
    server: str
    time: datetime
    headline: str
    lines: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    disk_uuid: str = ""
    disk_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminded:
    """What was said about one disk: how many reminders there were, and when the last one was."""

    times: int
    last: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminders:
    """What is kept about reminders. ``since`` is when this server was first looked at, ``last`` when the last reminder about
    anything went out, ``disks`` has those by UUID that are late and were named."""

    since: datetime
    last: datetime | None = None
    disks: Mapping[str, Reminded] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCategory:
    """One kind of what a plan would do: ``new``, ``changed``, ``moved``, ``renamed``, ``deleted``, ``compared``,
    ``unchanged``, ``links``, ``excluded``, ``unrepresentable``. ``items`` are paths, printable, at most some thousands;
    ``count`` has all."""

    code: str
    count: int
    bytes: int = 0
    items: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanReport:
    """What a run would do now: nothing has been changed. ``findings`` are the verdicts: held deletions, missing room."""

    disk: Disk
    mode: Mode
    categories: tuple[PlanCategory, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a run is. ``done`` and ``total`` are bytes; ``total`` is 0 where it is not known yet. ``rate`` is bytes in a
    second and ``seconds_left`` a guess, None where nothing is known of them."""

    run_id: str
    disk_name: str
    stage: Stage
    done: int = 0
    total: int = 0
    percent: int | None = None
    current: str = ""
    rate: float | None = None
    seconds_left: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Accepted when there is no reason against it; a rejection carries all its reasons."""

    reasons: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.reasons
