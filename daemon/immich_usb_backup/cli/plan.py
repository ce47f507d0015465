"""``immich-usb-backup plan``: what a backup to a disk would do now. Nothing is changed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator

from immich_usb_backup import dbus_names, messages
from immich_usb_backup.adapters import plan_json
from immich_usb_backup.cli.asking import Unanswered, add_disk, add_mode, ask, disk_of
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.model import Finding, PlanCategory, PlanReport, Severity
from immich_usb_backup.policy.text import counted, harmless, printable, size

PLAN_SECONDS = 3600.0
"""A disk that must be walked, or a backup to another disk that comes first, takes its time."""

_ITEMS_SHOWN = 5
WORDS = {
    "new": "new",
    "changed": "changed",
    "moved": "moved on the disk",
    "renamed": "stored under another name",
    "deleted": "would be set aside as deleted",
    "compared": "would be compared",
    "unchanged": "unchanged",
    "links": "links, which are written down only",
    "excluded": "left out as configured",
    "unrepresentable": "cannot be stored",
}
_COPIED = {"new", "changed"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    add_disk(parser)
    add_mode(parser)
    parser.add_argument("--all", action="store_true", help="every file, not only the first few of each kind")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print it. 1 when a backup would not be a whole one, 75 when the disk is not here."""
    if sys.stderr.isatty():
        print("Looking at the disk and at Immich's files. This may take minutes.", file=sys.stderr)
    try:
        document = ask(dbus_names.PLAN, disk_of(arguments), arguments.mode, timeout=PLAN_SECONDS)
    except Unanswered as error:
        return error.show()
    report = plan_json.load(str(document))
    if arguments.json:
        print(json.dumps(json.loads(document), indent=2))
    else:
        print("\n".join(lines(report, everything=arguments.all)))
    whole = all(finding.severity is Severity.NOTE for finding in report.findings)
    return ExitCode.OK if whole else ExitCode.PROBLEM


def lines(report: PlanReport, *, everything: bool) -> Iterator[str]:
    """The plan for people, without terminal control characters."""
    yield f"Plan for '{printable(report.disk.name)}', mode {report.mode.value}:"
    for category in report.categories:
        if category.count:
            yield from _category(category, everything=everything)
    for finding in report.findings:
        yield from _finding(finding)
    copied = [category for category in report.categories if category.code in _COPIED]
    files = counted(sum(category.count for category in copied), "file")
    yield f"{files} ({size(sum(category.bytes for category in copied))}) would be copied; nothing was changed."


def _category(category: PlanCategory, *, everything: bool) -> Iterator[str]:
    words = WORDS.get(category.code, harmless(category.code))
    room = f", {size(category.bytes)}" if category.bytes else ""
    yield f"{words}: {counted(category.count, 'file')}{room}"
    shown = category.items if everything else category.items[:_ITEMS_SHOWN]
    yield from (f"    {harmless(item)}" for item in shown)
    if shown and (left := category.count - len(shown)) > 0:
        how = " (--all shows more)" if len(shown) < len(category.items) else ""
        yield f"    and {left:,} more{how}"


def _finding(finding: Finding) -> Iterator[str]:
    kind = "Note" if finding.severity is Severity.NOTE else "Problem"
    yield f"{kind}: {messages.finding_line(finding)}"
    if finding.hint:
        yield f"    To do: {harmless(finding.hint)}"
