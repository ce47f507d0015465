"""What people are told about a run, in one place for every channel: journal, desktop, mail.

All text is plain and on clean lines: names from a disk are made printable here; a channel that needs markup escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass

from immich_usb_backup.model import COPY_STAGES, Finding, Outcome, Progress, RunReport, Severity, Stage, StageReport
from immich_usb_backup.policy.again import again_line
from immich_usb_backup.policy.text import counted, duration, harmless, moment, printable, sentence, size
from immich_usb_backup.policy.verdict_words import verdict_lines

STAGE_WORDS = {
    Stage.CHECK: "checking the file system",
    Stage.MOUNT: "preparing",
    Stage.DATABASE: "copying the database dump",
    Stage.CONFIG: "copying the configuration",
    Stage.PLAN: "finding out what is new",
    Stage.COMPARE: "comparing the disk with the server",
    Stage.UPLOAD: "copying photos (upload)",
    Stage.LIBRARY: "copying photos (library)",
    Stage.PROFILE: "copying profile pictures",
    Stage.EXTRA: "copying extra folders",
    Stage.PROVE: "reading photos back from the disk",
    Stage.FLUSH: "writing the last data to the disk",
    Stage.UNMOUNT: "unmounting",
}
SAFE_TO_UNPLUG = "safe to unplug"
MAYBE_MOUNTED = "it may still be mounted, do not just unplug it"
_ITEMS_SHOWN = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A headline that says it all, then what happened line by line, then what to do. ``problems`` are what is wrong,
    ``verdict`` is what the disk is worth now, ``facts`` are the rest."""

    headline: str
    problems: tuple[str, ...]
    verdict: tuple[str, ...]
    facts: tuple[str, ...]
    todo: tuple[str, ...]

    @property
    def lines(self) -> tuple[str, ...]:
        """What happened, the worst first."""
        return (*self.problems, *self.verdict, *self.facts)

    @property
    def text(self) -> str:
        """Everything below the headline, as plain text."""
        return "\n".join((*self.lines, *self.todo))


def outcome_message(report: RunReport) -> Message:
    """What to say when a run has ended."""
    serious = [finding for finding in report.findings if finding.severity is not Severity.NOTE]
    notes = [finding for finding in report.findings if finding.severity is Severity.NOTE]
    todo = tuple(dict.fromkeys(harmless(finding.hint) for finding in serious if finding.hint))
    todo += (again,) if (again := again_line(report)) else ()
    problems = [line for finding in serious for line in _finding_lines(finding)]
    facts = [_amount(report), *filter(None, (_dump_line(report), _space_line(report)))]
    facts += [line for finding in notes for line in _finding_lines(finding)]
    return Message(
        headline=headline(report), problems=tuple(problems), verdict=_verdict(report), facts=tuple(facts), todo=todo
    )


def headline(report: RunReport) -> str:
    """The outcome in one line: may the disk go, and is the backup whole?"""
    return outcome_headline(report.disk.name, report.outcome, _unplug_words(report))


def outcome_headline(disk_name: str, outcome: Outcome, unplug: str) -> str:
    """The same from its parts; ``unplug`` says whether the disk may go."""
    name = f"'{printable(disk_name)}'"
    return {
        Outcome.OK: f"{name} is backed up: {unplug}",
        Outcome.PARTIAL: f"{name} is backed up, but not everything: {unplug}",
        Outcome.FAILED: f"Backup to {name} failed: {unplug}",
        Outcome.INTERRUPTED: f"Backup to {name} was interrupted: {unplug}",
    }[outcome]


def away_headline(disk_name: str, outcome: Outcome, unplug: str) -> str:
    """The outcome for somebody who comes back; an empty ``unplug`` is for a disk that is not here any more."""
    name = f"'{printable(disk_name)}'"
    said = {
        Outcome.OK: f"{name} was backed up while you were away",
        Outcome.PARTIAL: f"{name} was backed up while you were away, but not everything",
        Outcome.FAILED: f"Backup to {name} failed while you were away",
        Outcome.INTERRUPTED: f"Backup to {name} was interrupted while you were away",
    }[outcome]
    return f"{said}: {unplug}" if unplug else said


def _unplug_words(report: RunReport) -> str:
    if report.safe_to_unplug:
        return SAFE_TO_UNPLUG
    if any(finding.code == "disk-gone" for finding in report.findings):
        return "it was unplugged too early"
    return MAYBE_MOUNTED


def story_line(report: RunReport) -> str:
    """The whole outcome in one line, for the journal."""
    serious = [harmless(f.message) for f in report.findings if f.severity is not Severity.NOTE]
    return sentence(headline(report), *serious, _amount(report))


def started_line(disk_name: str) -> str:
    """What to say when a run begins."""
    return f"Backing up to '{printable(disk_name)}': please leave it plugged in"


def progress_line(progress: Progress) -> str:
    """One line on how far a run is."""
    parts = [STAGE_WORDS[progress.stage]]
    if progress.stage is Stage.FLUSH and progress.total:
        parts.append(f"{size(max(0, progress.total - progress.done))} left")
    elif progress.total and progress.stage in COPY_STAGES:
        parts.append(f"{size(progress.done)} of {size(progress.total)}")
    elif progress.done and progress.stage is Stage.PROVE:
        parts.append(size(progress.done))
    if progress.percent is not None:
        parts.append(f"{progress.percent} %")
    if progress.rate is not None:
        parts.append(f"{size(int(progress.rate))} in a second")
    if progress.seconds_left is not None:
        parts.append(f"about {duration(progress.seconds_left)} left")
    return ", ".join(parts)


def finding_line(finding: Finding) -> str:
    """A finding in one line, with the first of its files."""
    shown = ", ".join(map(harmless, finding.items[:3]))
    more = f" and {finding.count - 3:,} more" if finding.items and finding.count > 3 else ""
    message = harmless(finding.message)
    return sentence(f"{message} ({shown}{more})" if shown else message)


def _verdict(report: RunReport) -> tuple[str, ...]:
    if report.verdict is None:
        return ()
    return verdict_lines(report.verdict, report.disk.name, today=report.ended)


def _finding_lines(finding: Finding) -> list[str]:
    lines = [sentence(harmless(finding.message))]
    lines += [f"  - {harmless(item)}" for item in finding.items[:_ITEMS_SHOWN]]
    if (left := finding.count - _ITEMS_SHOWN) > 0 and finding.items:
        lines.append(f"  - and {left:,} more")
    return lines


def _amount(report: RunReport) -> str:
    files, copied = _sum(report.stages)
    took = duration((report.ended - report.started).total_seconds())
    if files == 0:
        return f"Nothing new had to be copied ({took})."
    return f"{counted(files, 'file')} ({size(copied)}) copied in {took}."


def _sum(stages: tuple[StageReport, ...]) -> tuple[int, int]:
    return sum(stage.files for stage in stages), sum(stage.bytes for stage in stages)


def _dump_line(report: RunReport) -> str:
    if report.dump_time is None:
        return ""
    return f"The database is as of {moment(report.dump_time)}."


def _space_line(report: RunReport) -> str:
    return "" if report.free_bytes is None else f"{size(report.free_bytes)} are free on the disk."
