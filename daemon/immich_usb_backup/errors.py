"""One tree of errors. Each has a stable code, says whether a retry can help, and what the user can do.

A ``BackupError`` ends a run (or a command) with a message that is shown as it is; anything else is a bug and is
shown with its trace at the outermost edge.
"""

from __future__ import annotations

from typing import ClassVar

INSTALL_AGAIN = "sudo immich-usb-backup install-system, or install the package again"
"""What puts rules, units and policies back into place, whichever way they came."""


class BackupError(Exception):
    """Base of all errors that a user may see. ``retryable``: the next plug-in may well succeed without any change."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint


class ConfigError(BackupError):
    """The configuration cannot be used. ``problems`` has one line for each mistake, with its path."""

    code = "config-invalid"
    default_hint = "Correct the configuration, then run: immich-usb-backup check-config"

    def __init__(self, message: str, *, problems: tuple[str, ...] = (), hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class DiskGone(BackupError):
    """The disk was unplugged, or stopped answering, before the run was over."""

    code = "disk-gone"
    retryable = True
    default_hint = "Plug the disk in again: the next run repeats what is missing. Wait for the message that says it is safe to unplug."


class DiskNotReady(BackupError):
    """UDisks2 did not offer the file system in time."""

    code = "disk-not-ready"
    retryable = True
    default_hint = "Unplug the disk and plug it in again. If that does not help, look at: journalctl -u udisks2"


class MountFailed(BackupError):
    """UDisks2 refused to mount the file system, or mounted something else."""

    code = "mount-failed"
    default_hint = (
        "The file system may be damaged: check it (Windows: chkdsk, Linux: sudo fsck.exfat) and plug the disk in again."
    )


class WrongDevice(BackupError):
    """The mount point is not the disk: something would have been written elsewhere."""

    code = "wrong-device"
    retryable = True
    default_hint = "Nothing was written. Unplug the disk and plug it in again."


class DiskReadOnly(BackupError):
    """The disk cannot be written to."""

    code = "disk-read-only"
    default_hint = "Slide the write-protection switch, if there is one. Else the file system may be damaged: check it on a computer."


class MarkerUnusable(BackupError):
    """The marker is there and cannot be made into the backup folder."""

    code = "marker-unusable"
    default_hint = (
        "Look at the disk on a computer: rename what is in the way, or the whole folder immich-server-backups, and make an "
        "empty one of this name in its root."
    )


class UnmountBusy(BackupError):
    """Another program holds the disk."""

    code = "unmount-busy"
    retryable = True
    default_hint = "Close what uses the disk, then eject it from the file manager or with: udisksctl unmount -b DEVICE"


class FlushFailed(BackupError):
    """The kernel could not write everything to the disk: what was copied cannot be trusted."""

    code = "flush-failed"
    retryable = True
    default_hint = "Plug the disk in again. If this comes back, the disk or its cable is failing: use another one."


class DiskFailing(BackupError):
    """The disk is there and answers with errors."""

    code = "disk-failing"
    retryable = True
    default_hint = "Try another cable or port and plug the disk in again. If this comes back, replace the disk."


class DiskFull(BackupError):
    """There is no room left on the disk."""

    code = "disk-full"
    default_hint = "Make room on the disk, or use a larger one."


class SourceUnreadable(BackupError):
    """A folder of Immich's that must be there is not, or cannot be read."""

    code = "source-unreadable"
    default_hint = (
        "Is Immich's storage mounted, and is media_location right? Check with: immich-usb-backup check-config"
    )


class CommandFailed(BackupError):
    """A program that we need is missing or ended in a way that it never should."""

    code = "command-failed"
    default_hint = "Is it installed? See the requirements in the README."


class BusLost(BackupError):
    """The connection to D-Bus is gone, or there never was one."""

    code = "bus-lost"
    retryable = True
    default_hint = "Is D-Bus running?"


class BusCallFailed(BackupError):
    """Another service answered with an error. ``name`` is its D-Bus name."""

    code = "bus-call-failed"

    def __init__(self, name: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.name = name


class DeadlineMissed(BackupError):
    """Something took longer than it ever should. Never waited for without end."""

    code = "deadline-missed"
    retryable = True
    default_hint = "Unplug the disk and plug it in again. If this comes back, the disk may be failing."


class NotAllowed(BackupError):
    """The user who runs a command may not see what it needs."""

    code = "not-allowed"
    default_hint = "Run it with sudo."


class DeliveryFailed(BackupError):
    """A message could not be delivered. ``permanent``: trying again cannot help until somebody changes something."""

    code = "delivery-failed"
    retryable = True

    def __init__(self, message: str, *, permanent: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent


class StateDamaged(BackupError):
    """A file in the state directory cannot be read or was written by a newer version."""

    code = "state-damaged"
    default_hint = (
        "Install the version that wrote it, or move the file away: the history starts anew, no backup is lost."
    )


class ManifestUnusable(BackupError):
    """The manifest on a disk is damaged, or a newer version wrote it. ``newer``: it is whole, and not for us."""

    code = "manifest-unusable"
    default_hint = "Install the newest version of immich-usb-backup on this server, then plug the disk in again."

    def __init__(self, message: str, *, newer: bool = False, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.newer = newer


class DumpUnusable(BackupError):
    """A database dump cannot be read, or does not hold what Immich's dumps hold."""

    code = "dump-unusable"
    default_hint = "Make a new dump in Immich (Administration, Settings, Backup) and look at Immich's log."


class DatabaseRefused(BackupError):
    """A database is not one that the dump may go into, or does not answer. Nothing was changed in it."""

    code = "database-refused"
    default_hint = "Nothing was changed."


class DatabaseFailed(BackupError):
    """The database could not be restored: the server refused a part of the dump, or the dump broke off."""

    code = "database-failed"
    default_hint = (
        "The database is as empty as it was: everything was one transaction. Correct the cause and try again."
    )


class FreshDumpFailed(BackupError):
    """No fresh database dump could be made."""

    code = "fresh-dump-failed"
    default_hint = (
        "Try it: sudo systemctl restart immich-usb-backup-dump; systemctl status immich-usb-backup-dump. "
        "What each way needs is in docs/how-to/fresh-dumps.md."
    )


class ForeignBackup(BackupError):
    """The disk carries the backup of another server."""

    code = "foreign-backup"
    default_hint = "If this server is to use the disk from now on, run: sudo immich-usb-backup adopt DISK"


class DiskNotTrusted(BackupError):
    """The disk carries the marker and was not enrolled on this server, where that is asked for."""

    code = "disk-not-trusted"
    default_hint = "If it is your disk, run: sudo immich-usb-backup enroll DEVICE --name NAME"


class EnrolmentRefused(BackupError):
    """The disk is not one that can be enrolled. Nothing was written to it."""

    code = "enrolment-refused"


class FileSystemDamaged(BackupError):
    """The disk's file system has errors that were not repaired."""

    code = "file-system-damaged"
    default_hint = (
        "Check it on a computer (Windows: chkdsk X: /f, Linux: sudo fsck.exfat), then plug the disk in again."
    )


class NoBackupHere(BackupError):
    """What a restore is to read from holds no backup, or not what was asked for."""

    code = "no-backup-here"
    default_hint = "Name the place where the disk is mounted, or a copy of its folder immich-server-backups. Is it mounted? See: lsblk -f"


class BackupUnreadable(BackupError):
    """The disk that a restore reads from went away, or answers with errors only."""

    code = "backup-unreadable"
    retryable = True
    default_hint = "Plug the disk in again (another port or cable helps often), mount it, and run the same command again: it goes on."


class RestoreTargetUnusable(BackupError):
    """The place that is restored to cannot be used, or cannot be written to any more."""

    code = "restore-target-unusable"


class RestoreTargetFull(BackupError):
    """There is no room where a restore writes to."""

    code = "restore-target-full"
    default_hint = "Make room there, or name another place by --to; then run the same command again: it goes on."


class Interrupted(BackupError):
    """Somebody stopped the run: the service was stopped, or the machine shuts down."""

    code = "interrupted"
    retryable = True
    default_hint = "Unplug the disk and plug it in again: the next run completes it."
