"""Every kind of event that the journal shows: a stable MESSAGE_ID, a priority and the sentence a person reads.

One source for the log, the documentation and (later) the message catalog. A MESSAGE_ID never changes its meaning.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class Kind:
    """``message_id`` as journald wants it (32 hex digits), a ``logging`` level, and a template for ``policy.text.fill``."""

    message_id: str
    level: int
    template: str


_DEBUG, _INFO, _WARN, _ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR


class Event(Enum):
    """What can happen. The name in lower case, with dashes, is the event's code in documents."""

    READY = Kind("07c4cf02b54d4ee5a67c0c41f183acb0", _INFO, "Waiting for disks on {transports}")
    STOPPING = Kind("bba91f3f4e934b648ce51789556d5ab2", _INFO, "Stopping")
    BEGINS_ANEW = Kind(
        "5d1c6c4d0b4f4c0e8d1f6f0a0a9be2c7",
        _INFO,
        "The program or its settings have changed; the service begins anew as soon as no backup runs",
    )
    RELOADED = Kind(
        "f6762925c267474489f500844ea58962", _INFO, "Configuration read again; it holds from the next run on"
    )
    RELOAD_REFUSED = Kind(
        "20c832e2433c4c7cb5a809b2783287bd", _ERROR, "The new configuration has mistakes, the old one stays: {problems}"
    )
    MONITOR_OVERFLOW = Kind(
        "83d28833285045bb8e8f136bae4f6f49", _WARN, "Device events were lost in a burst; looked at all disks again"
    )
    DISK_IGNORED = Kind("45eb928020ea4e9abbb8a108160c386a", _INFO, "Ignored {device} {label:quote}: {reasons}")
    DISK_IRRELEVANT = Kind("a1bccbc888ec4a60a27e30acd360aac8", _DEBUG, "Ignored {device}: {reasons}")
    DISK_QUEUED = Kind("eb5e9971ee8246fd899c83cb30bfeaa6", _INFO, "{device} {label:quote} waits for the disk before it")
    DISK_UNMARKED = Kind(
        "50b8fb734ee5484a9290f86c5b184354",
        _INFO,
        "{device} {label:quote} has no marker immich-server-backups: left as it was",
    )
    DISK_UNREADABLE = Kind(
        "0f5ca4224d58477eb8de154ee8732159", _WARN, "Could not look for the marker on {device} {label:quote}: {message}"
    )
    DISK_NOT_TRUSTED = Kind("c7b26b93fe3e4f4fb55493d552dda458", _WARN, "{message} {hint}")
    DISK_ENROLLED = Kind(
        "60184638d80347eead93230d4a0ac6d1", _INFO, "{disk:quote} ({device}) is enrolled on this server, and unmounted"
    )
    ENROLMENT_CUT_OFF = Kind(
        "6b734171fa5a48c5a7f6cf9e8894d879",
        _WARN,
        "The service ended while {disk:quote} was being enrolled; cleaned up after it",
    )
    DISK_REMOVED = Kind("267cb7446a154646ba6c5c91e99023ba", _INFO, "{disk:quote} was unplugged")
    RUN_STARTED = Kind(
        "1fe6fc52630d4657a23ba96fe7e75221",
        _INFO,
        "Backing up to {disk:quote} ({device}, {total_bytes:size}, {free_bytes:size} free)",
    )
    DISK_WALKED = Kind("2d3e8215261a435291ac1ec2aa01b0eb", _INFO, "Looking at every file on {disk:quote}: {reasons}")
    PLAN_MADE = Kind("3c451ab643cf4d2483c724cc71d44c0c", _INFO, "{summary}")
    STAGE_DONE = Kind("8c9b388a9a654786be2275331be65421", _INFO, "{summary}")
    FINDING_NOTE = Kind("286d96a619264d178c63e4408f3824c3", _INFO, "{message}")
    FINDING = Kind("46d4a40dde9741ca8557f44a8b6a0872", _WARN, "{message} {hint}")
    VERDICT = Kind("ab4c2514ca4444e59d8054661f17b5f9", _INFO, "{message}")
    RUN_OK = Kind("0f86d6ce83884ab780c58acc7ab3952a", _INFO, "{message}")
    RUN_PARTIAL = Kind("c37fc77dbe254942b94ac6634b06759e", _WARN, "{message}")
    RUN_FAILED = Kind("5589fd7552794a7e8b6e64b153ffd698", _ERROR, "{message}")
    RUN_INTERRUPTED = Kind("16a8f01c1c7e4116a348315267c755ea", _WARN, "{message}")
    CRASHED_RUN_FOUND = Kind(
        "d695663ace334d309077dcc945a36e5c",
        _WARN,
        "The service ended in the middle of a run on {disk:quote}; cleaned up after it",
    )
    NO_INHIBITOR = Kind("1ee793e41b3a4eb891a09781596a7eaa", _DEBUG, "Cannot hold off {what} during the run: {message}")
    POWERED_OFF = Kind("eee742871d03488eae990092b5ac0505", _DEBUG, "{disk:quote} is powered off")
    DELIVERED = Kind("0be84ec7dea74155b80bad0eee3aee96", _INFO, "Told {channel} about {what}")
    DELIVERY_FAILED = Kind(
        "f107ffd6e6e94ecbbc8a43ed3affc9ad",
        _WARN,
        "Could not tell {channel}: {message} Next try in {seconds:duration}. {hint}",
    )
    DELIVERY_GIVEN_UP = Kind(
        "1e704c8b51794dc1af7178a5c9824256", _ERROR, "Gave up telling {channel} about {what}: {message} {hint}"
    )
    HELD_BACK = Kind(
        "e8c5dabe4fa54d05944f087ce6c26224",
        _INFO,
        "{channel} knows the like already, and is not told about {what}; how often it was is told next time",
    )
    OUTBOX_UNREADABLE = Kind(
        "b4f91433a5d94108bef341b15f1eb4be", _ERROR, "{file:quote} in the outbox cannot be read: {message}"
    )
    ANNOUNCE_FAILED = Kind(
        "62fa90723b694cd0b71cd12db3418c19",
        _ERROR,
        "The outcome is in the history, but could not be handed on: {message} {hint}",
    )
    BEGIN_UNTOLD = Kind(
        "f2631469cab94993a590ea0f8792ce16", _WARN, "The beginning of the run could not be handed on: {message} {hint}"
    )
    METRICS_FAILED = Kind(
        "701930c9babf4433828c38024ae6aff9", _WARN, "The figures for Prometheus could not be written: {message} {hint}"
    )
    WATCHER_FAILED = Kind("7f0d1c6a3b5e4c0f9a52d86be1470c3d", _WARN, "{watcher} could not be told: {message}")
    NO_BUS_NAME = Kind(
        "b3a1f6f2f4f94c9d8a3a55a0b8d0f5c4",
        _WARN,
        "Desktops will not be told: D-Bus does not let this user own the service's name ({message})",
    )
    REMINDED = Kind("cc811b618669496a8ebf5d2747a07f58", _WARN, "{message} {hint}")
    WAITS_FOR_MAINS = Kind("8963701e29d7450a830d05248d859011", _WARN, "{message} {hint}")
    SKIPPED_ON_BATTERY = Kind("b71b7bd092ef419498a9d7ada478e4b5", _WARN, "{message} {hint}")
    MAINS_BACK = Kind("a2f288633b3b4b87a9fe1bbae0e0c8ba", _INFO, "Mains power is back: {disk:quote} waits no longer")
    LEFT_BEFORE_MAINS = Kind(
        "17156667e43243759c09ab21d464a3ea",
        _WARN,
        "{disk:quote} was unplugged while it waited for mains power: no backup was made",
    )
    CANCELLED_BEFORE_MAINS = Kind(
        "03cb7b24e25a4098a4a0e98251011d6f",
        _INFO,
        "{disk:quote} waits for mains power no longer: the backup was cancelled",
    )
    FATAL = Kind("0e9ff4171b724ff4902042e887fd6b61", _ERROR, "{message} {hint}")
    BUG = Kind("f779b05ec7004e55bfe0d9998909a076", _ERROR, "A bug in immich-usb-backup: {message}")
    AGENT_READY = Kind("16424d924412440f8075909e638bb23d", _INFO, "Showing backups on this desktop")
    SHOWN_FORGOTTEN = Kind(
        "e97492cd608145f9a92055fee28a880a",
        _WARN,
        "What was shown on this desktop cannot be remembered, and may be shown again: {file:quote}: {message}",
    )

    @property
    def kind(self) -> Kind:
        """The constant facts about this event."""
        return self.value

    @property
    def code(self) -> str:
        """The name that documents and the journal use: ``run-ok``."""
        return self.name.lower().replace("_", "-")
