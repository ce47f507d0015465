"""What the planning and the copying of the originals mean to the user."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from immich_usb_backup.model import Disk, Finding, Severity
from immich_usb_backup.policy.deletions import APPROVE, Approval
from immich_usb_backup.policy.outcome import about_files
from immich_usb_backup.policy.text import counted, printable, size
from immich_usb_backup.policy.whole_plan import Plan, Steps

OF_CONTENT = frozenset({"disk-rotten", "source-suspicious", "content-differs"})
"""The codes of what the contents of both sides said."""

_SERVER_HINT = "Look at the server's disk and at the permissions, then plug the disk in again."


def of_plan(plan: Plan, steps: Steps) -> tuple[Finding, ...]:
    """What is known before the copying: names, links, what is left out, a source that is not whole."""
    found = (
        _renamed(plan, steps),
        _specials(plan),
        _links(plan),
        _unreadable(plan),
        _excluded(plan),
        _changed(plan, steps),
        _rotten(steps),
        _suspicious(steps),
        _different(steps),
        _uncompared(steps),
        _waiting(steps),
    )
    return tuple(finding for finding in found if finding is not None)


def _renamed(plan: Plan, steps: Steps) -> Finding | None:
    new = {item.path for item in steps.copy} | {pair.item.path for pair in steps.moves}
    new.update(path for folder in plan.folders for path in folder.new_folders)
    renamed = [(path, stored) for folder in plan.folders for path, stored in folder.renamed if path in new]
    if not renamed:
        return None
    message = (
        f"{counted(len(renamed), 'file')} {'has a name' if len(renamed) == 1 else 'have names'} that exFAT, Windows or macOS "
        "cannot hold: stored under another, the manifest on the disk has the original"
    )
    entries = [(path, f"stored as {printable(stored.rpartition(b'/')[2])}") for path, stored in renamed]
    return about_files("stored-under-another-name", Severity.NOTE, message, entries)


def _specials(plan: Plan) -> Finding | None:
    entries = [entry for folder in plan.folders for entry in folder.specials]
    if not entries:
        return None
    message = f"{counted(len(entries), 'socket, FIFO or device', 'sockets, FIFOs or devices')} cannot be backed up"
    return about_files("not-a-file", Severity.NOTE, message, entries)


def _links(plan: Plan) -> Finding | None:
    entries = [(path, f"points to {printable(goal)}") for folder in plan.folders for path, goal in folder.links_outside]
    if not entries:
        return None
    return about_files(
        "link-outside",
        Severity.PARTIAL,
        f"{counted(len(entries), 'symbolic link')} {'points' if len(entries) == 1 else 'point'} out of the library; "
        "what lies there is NOT backed up",
        entries,
        hint="Name the folder that the link leads to under [extra] in the configuration, then plug the disk in again.",
    )


def _unreadable(plan: Plan) -> Finding | None:
    entries = [entry for folder in plan.folders for entry in folder.unreadable]
    if not entries:
        return None
    message = f"{counted(len(entries), 'folder or file', 'folders or files')} could not be read on the server"
    return about_files("source-unreadable", Severity.PARTIAL, message, entries, hint=_SERVER_HINT)


def _excluded(plan: Plan) -> Finding | None:
    number = sum(folder.excluded for folder in plan.folders)
    if not number:
        return None
    left_out = sum(folder.excluded_bytes for folder in plan.folders)
    message = (
        f"{counted(number, 'file or folder', 'files or folders')} ({size(left_out)} in files) {_are(number)} left out by the "
        "patterns under [exclude]"
    )
    return Finding(code="excluded", severity=Severity.NOTE, message=message, count=number)


def _changed(plan: Plan, steps: Steps) -> Finding | None:
    replaced = {present.path for present in steps.aside}
    changed = [pair for pair in plan.changed if pair.present.path in replaced]
    if not changed:
        return None
    emptied = sum(pair.item.file.size == 0 for pair in changed)
    more = f", {emptied:,} of them to nothing" if emptied else ""
    return about_files(
        "originals-changed",
        Severity.PARTIAL if emptied else Severity.NOTE,
        f"{counted(len(changed), 'original')} changed in size, which Immich never does{more}; the disk's old copies are kept "
        "in deleted/",
        ((pair.item.path, "") for pair in changed),
        hint="Look at these files on the server: are they damaged? The old copies are on the disk.",
    )


def _rotten(steps: Steps) -> Finding | None:
    return _content(
        "disk-rotten",
        Severity.PARTIAL,
        steps.rotten,
        "no longer had the content on the disk that was once copied: copied again from the server, which still has it",
        "The disk may be failing: have it compared as a whole with: sudo immich-usb-backup backup DISK --mode verify",
    )


def _suspicious(steps: Steps) -> Finding | None:
    return _content(
        "source-suspicious",
        Severity.PARTIAL,
        steps.suspicious,
        "no longer has the content on the server that was once copied, with the same time: the disk's copy is left as it is",
        "The server's disk may be failing. Look at these files in Immich; the disk has the content of before.",
    )


def _different(steps: Steps) -> Finding | None:
    return _content(
        "content-differs",
        Severity.PARTIAL,
        steps.different,
        "had another content on the disk than on the server, with the same size and time: copied anew, the disk's is kept "
        "in deleted/",
        "Look at these files: one of the two is damaged.",
    )


def _content(code: str, severity: Severity, paths: Sequence[bytes], message: str, hint: str) -> Finding | None:
    if not paths:
        return None
    return about_files(
        code, severity, f"{counted(len(paths), 'file')} {message}", ((path, "") for path in paths), hint=hint
    )


def _uncompared(steps: Steps) -> Finding | None:
    if not steps.unreadable:
        return None
    message = f"{counted(len(steps.unreadable), 'file')} could not be read on the server to be compared"
    return about_files("source-unreadable", Severity.PARTIAL, message, steps.unreadable, hint=_SERVER_HINT)


def _waiting(steps: Steps) -> Finding | None:
    if not steps.waiting:
        return None
    return about_files(
        "deletions-held",
        Severity.PARTIAL,
        f"{counted(len(steps.waiting), 'file')} {_are(len(steps.waiting))} not copied or moved yet: what is held has "
        f"{'its place' if len(steps.waiting) == 1 else 'their places'} on the disk",
        ((path, "") for path in steps.waiting),
    )


def held(disk: Disk, removals: Iterable[bytes], reasons: Sequence[str], approval: Approval) -> Finding:
    """Files that would leave the disk's copy, and must not without somebody's word."""
    paths = sorted(removals)
    number = counted(len(paths), "file")
    bigger = "; there is an approval, but for fewer files" if approval.too_big else ""
    name = printable(disk.name)
    return about_files(
        "deletions-held",
        Severity.PARTIAL,
        f"Nothing was removed from the backup: {number} that {_are(len(paths))} gone or changed on the server "
        f"{_are(len(paths))} held, because {'; '.join(reasons)}{bigger}",
        ((path, "") for path in paths),
        hint=(
            "Is Immich's storage mounted, and are the photos gone because you deleted them? Then approve: "
            f"sudo immich-usb-backup approve '{name}', or put an empty file {APPROVE}.txt into immich-server-backups on the "
            "disk and plug it in again. Plugging in alone approves nothing."
        ),
    )


def unmarked(plan: Plan, immichs: Collection[str]) -> tuple[Finding, ...]:
    """Folders of Immich's without its mark, where that is not said already as a reason to hold."""
    names = [
        folder.rules.name for folder in plan.folders if not folder.marked and folder.rules.name.decode() in immichs
    ]
    if not names:
        return ()
    message = f"Immich's mark .immich is missing in {' and '.join(map(printable, names))} on the server"
    hint = "Is Immich's storage mounted? Check that it is, and that Immich starts, then plug the disk in again."
    return (Finding(code="source-unmarked", severity=Severity.PARTIAL, message=message, hint=hint, count=len(names)),)


def unused_approval(names: Sequence[str]) -> Finding:
    """A file that approves, and nothing that was held."""
    message = f"{printable(names[0])} on the disk had nothing to approve, and was removed"
    return Finding(code="approval-unused", severity=Severity.NOTE, message=message)


def of_copy(failed: Sequence[tuple[bytes, str]], vanished: Sequence[bytes]) -> tuple[Finding, ...]:
    """What the copying left undone."""
    found = []
    if failed:
        found.append(
            about_files(
                "files-failed",
                Severity.PARTIAL,
                f"{counted(len(failed), 'file')} could not be copied",
                failed,
                hint="Plug the disk in again: the next run tries them once more.",
            )
        )
    if vanished:
        message = f"{counted(len(vanished), 'file')} went away while being copied (Immich moved or deleted them)"
        entries = ((path, "") for path in vanished)
        found.append(about_files("files-vanished", Severity.NOTE, message, entries))
    return tuple(found)


def of_removal(moved: int, left: Sequence[tuple[bytes, str]], into: str) -> tuple[Finding, ...]:
    """What was set aside, and what could not be."""
    found = []
    if left:
        message = f"{counted(len(left), 'file')} on the disk could not be moved to {into}"
        hint = "Look at the folder deleted on the disk: does a file stand where a folder must be?"
        found.append(about_files("not-moved-aside", Severity.PARTIAL, message, left, hint=hint))
    if moved:
        message = f"{counted(moved, 'file')} that left the backup went to {into} on the disk"
        found.append(Finding(code="moved-aside", severity=Severity.NOTE, message=message, count=moved))
    return tuple(found)


def not_configured(names: Sequence[str]) -> Finding:
    """Extra folders on the disk that the configuration no longer names."""
    listed = ", ".join(printable(name) for name in names)
    message = f"extra/ on the disk holds {listed}, which the configuration no longer names: kept as it is"
    return Finding(code="extra-not-configured", severity=Severity.NOTE, message=message, count=len(names))


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def counts(plan: Plan, steps: Steps) -> Mapping[str, int]:
    """The plan in numbers, for the journal."""
    return {
        "new_files": len(steps.copy),
        "new_bytes": steps.copy_bytes,
        "moved_files": len(steps.moves),
        "aside_files": len(steps.aside),
        "compared_files": len(plan.compare),
        "unchanged_files": sum(folder.unchanged for folder in plan.folders) + steps.same,
    }


def plan_line(plan: Plan, steps: Steps) -> str:
    """The plan in one line."""
    number = counts(plan, steps)
    parts = [f"{counted(number['new_files'], 'file')} to copy ({size(number['new_bytes'])})"]
    parts += [f"{number['moved_files']:,} to move on the disk"] if number["moved_files"] else []
    parts += [f"{number['aside_files']:,} to set aside"] if number["aside_files"] else []
    parts += [f"{number['compared_files']:,} compared by content"] if number["compared_files"] else []
    parts.append(f"{number['unchanged_files']:,} unchanged")
    return "Plan: " + ", ".join(parts)
