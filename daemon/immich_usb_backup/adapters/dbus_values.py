"""Disks and runs as D-Bus tells of them. Whole numbers are ``x``; times are seconds since 1970, 0 where there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from immich_usb_backup import messages
from immich_usb_backup.adapters.bus import sendable
from immich_usb_backup.adapters.dbus_tree import types
from immich_usb_backup.model import Disk, Mode, Progress, RunReport, Trigger
from immich_usb_backup.policy.disk_facts import DiskFacts

MANAGER_PROPERTIES = types("Version:s Running:b CurrentRun:o")
DISK_PROPERTIES = types(
    "Uuid:s Name:s Label:s Model:s Size:x Device:s Known:b State:s Eligible:b Reasons:as LastRun:s LastOutcome:s "
    "LastEnded:x LastGood:x Due:x Late:b Restorable:s Verdict:s HeldDeletions:x NextRun:x Trusted:b History:s"
)
ENTRY_PROPERTIES = types(
    "Run:s Disk:s Name:s Started:x Ended:x Outcome:s SafeToUnplug:b Headline:s Files:x Bytes:x Findings:as Mode:s "
    "Trigger:s Verdict:s"
)
"""What ``GetHistory`` tells of a run."""
RUN_PROPERTIES = ENTRY_PROPERTIES | types("Body:s Todo:s Stage:s Percent:x Done:x Total:x Rate:x SecondsLeft:x Line:s")
_NOT_GOING = {"Stage": "", "Percent": -1, "Done": 0, "Total": 0, "Rate": -1, "SecondsLeft": -1, "Line": ""}


@dataclass(slots=True)
class Going:
    """The run that goes on, with its newest progress."""

    run_id: str
    disk: Disk
    started: datetime
    mode: Mode | None = None
    trigger: Trigger = Trigger.PLUG_IN
    progress: Progress | None = None


def of_disk(facts: DiskFacts) -> dict[str, Any]:
    """The properties of a disk."""
    last = facts.last
    return {
        "Uuid": sendable(facts.uuid),
        "Name": sendable(facts.name),
        "Label": sendable(facts.label),
        "Model": sendable(facts.model),
        "Size": facts.size,
        "Device": sendable(facts.device),
        "Known": last is not None,
        "State": facts.state.value,
        "Eligible": not facts.reasons,
        "Reasons": [sendable(reason) for reason in facts.reasons],
        "LastRun": last.run_id if last is not None else "",
        "LastOutcome": last.outcome.value if last is not None else "",
        "LastEnded": _seconds(last.ended if last is not None else None),
        "LastGood": _seconds(facts.good),
        "Due": _seconds(facts.due),
        "Late": facts.late,
        "Restorable": facts.verdict.restorable.value if facts.verdict is not None else "",
        "Verdict": sendable(facts.verdict_line),
        "HeldDeletions": facts.held_deletions,
        "NextRun": _seconds(facts.next_run),
        "Trusted": facts.trusted,
        "History": facts.strip,
    }


def of_run(report: RunReport) -> dict[str, Any]:
    """The properties of a run that is over."""
    message = messages.outcome_message(report)
    return {
        "Run": report.run_id,
        "Disk": sendable(report.disk.uuid),
        "Name": sendable(report.disk.name),
        "Started": _seconds(report.started),
        "Ended": _seconds(report.ended),
        "Outcome": report.outcome.value,
        "SafeToUnplug": report.safe_to_unplug,
        "Headline": sendable(message.headline),
        "Files": sum(stage.files for stage in report.stages),
        "Bytes": sum(stage.bytes for stage in report.stages),
        "Findings": [finding.code for finding in report.findings],
        "Mode": report.mode.value if report.mode is not None else "",
        "Trigger": report.trigger.value,
        "Verdict": sendable(" ".join(message.verdict[:2])),
        "Body": sendable("\n".join(message.lines)),
        "Todo": sendable("\n".join(message.todo)),
        **_NOT_GOING,
    }


def of_going(going: Going) -> dict[str, Any]:
    """The properties of the run that goes on."""
    return {
        "Run": going.run_id,
        "Disk": sendable(going.disk.uuid),
        "Name": sendable(going.disk.name),
        "Started": _seconds(going.started),
        "Ended": 0,
        "Outcome": "",
        "SafeToUnplug": False,
        "Headline": sendable(messages.started_line(going.disk.name)),
        "Files": 0,
        "Bytes": 0,
        "Findings": [],
        "Mode": going.mode.value if going.mode is not None else "",
        "Trigger": going.trigger.value,
        "Verdict": "",
        "Body": "",
        "Todo": "",
        **(of_progress(going.progress) if going.progress is not None else _NOT_GOING),
    }


def of_progress(progress: Progress) -> dict[str, Any]:
    """Those of them that change while it goes on."""
    return {
        "Stage": progress.stage.value,
        "Percent": -1 if progress.percent is None else progress.percent,
        "Done": progress.done,
        "Total": progress.total,
        "Rate": -1 if progress.rate is None else int(progress.rate),
        "SecondsLeft": -1 if progress.seconds_left is None else int(progress.seconds_left),
        "Line": sendable(messages.progress_line(progress)),
    }


def entry(run: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's properties is told in a list."""
    return {name: run[name] for name in ENTRY_PROPERTIES}


def _seconds(when: datetime | None) -> int:
    return int(when.timestamp()) if when is not None else 0
