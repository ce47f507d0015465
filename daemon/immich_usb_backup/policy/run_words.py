"""One run, at a glance and in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from immich_usb_backup.messages import STAGE_WORDS, headline, outcome_message
from immich_usb_backup.model import Finding, Outcome, Restorable, RunReport, Severity, StageReport
from immich_usb_backup.policy.ages import ago
from immich_usb_backup.policy.cells import Line, Note, Part, Tone, cells, cut, line, pad, wrapped
from immich_usb_backup.policy.status_words import NARROW, legend, strip
from immich_usb_backup.policy.text import counted, duration, harmless, moment, printable, sentence, size
from immich_usb_backup.policy.verdict_words import verdict_lines
from immich_usb_backup.policy.views import RunView, letter

TONES: dict[str, Tone] = {
    Outcome.OK: Tone.GOOD,
    Outcome.PARTIAL: Tone.WARN,
    Outcome.FAILED: Tone.BAD,
    Outcome.INTERRUPTED: Tone.WARN,
}
_OUTCOMES: dict[str, str] = {
    Outcome.OK: "good",
    Outcome.PARTIAL: "not everything",
    Outcome.FAILED: "failed",
    Outcome.INTERRUPTED: "interrupted",
    "": "goes on",
}
_TRIGGERS = {"plug-in": "by plugging it in", "asked": "because somebody asked for it", "schedule": "by its schedule"}
_SEVERITIES = {
    Severity.NOTE: ("Note", Tone.PLAIN),
    Severity.PARTIAL: ("Problem", Tone.WARN),
    Severity.FAILED: ("Failed", Tone.BAD),
    Severity.INTERRUPTED: ("Interrupted", Tone.WARN),
}
_NAME_AT_MOST, _WIDE = 16, 104


# At a glance ----------------------------------------------------------------------------------------------


def history_lines(runs: Sequence[RunView], now: datetime, columns: int) -> Iterator[Line]:
    """A strip, then one line for each run, the newest first; in narrow terminals two."""
    if not runs:
        yield from wrapped("There has been no run yet.", columns)
        return
    history = "".join(letter(run.outcome) for run in reversed(runs))
    if history:
        yield (Part("oldest ", Tone.DIM), *strip(history, columns - len("oldest  newest")), Part(" newest", Tone.DIM))
        yield from legend([history], columns)
        yield ()
    names = max(min(_NAME_AT_MOST, cells(printable(run.name))) for run in runs)
    for run in runs:
        yield from _glance(run, now, columns, names)


def _glance(run: RunView, now: datetime, columns: int, names: int) -> Iterator[Line]:
    outcome = Part(_OUTCOMES.get(run.outcome, "?"), TONES.get(run.outcome, Tone.STRONG))
    when = ago(run.started, now)
    if columns < NARROW:
        yield (outcome, Part(cut(f"  {when}, {printable(run.name)}", columns - cells(outcome.text))))
        yield line(cut(f"  {harmless(run.run)}", columns), Tone.DIM)
        return
    if columns >= _WIDE and run.started:
        when = f"{run.started.astimezone():%d %b %Y %H:%M}, {when}"
    first = f"{pad(printable(run.name), names)}  {pad(when, 33 if columns >= _WIDE else 14)}  "
    amount = size(run.bytes) if run.files else "-"
    rest = f"  {pad(amount, 8)}  {harmless(run.run)}"
    yield (Part(first), Part(pad(outcome.text, 14), outcome.tone), Part(cut(rest, columns - cells(first) - 14)))


# In full --------------------------------------------------------------------------------------------------


def report_lines(report: RunReport, now: datetime, columns: int) -> Iterator[Line]:
    """Everything that is known of a run that is over."""
    yield from wrapped(f"{headline(report)}.", columns, TONES[report.outcome])
    yield ()
    yield from _facts(report, now, columns)
    if report.findings:
        yield from _title("What was noticed", columns)
        for finding in sorted(report.findings, key=_gravity):
            yield from _finding(finding, columns)
    if report.verdict is not None:
        yield from _title("What the disk is worth", columns)
        yield from _verdict(report, columns)
    if report.stages:
        yield from _title("The steps", columns)
        for stage in report.stages:
            yield from _stage(stage, columns)
    yield from _next(report, columns)


def _facts(report: RunReport, now: datetime, columns: int) -> Iterator[Line]:
    disk = report.disk
    files, copied = sum(stage.files for stage in report.stages), sum(stage.bytes for stage in report.stages)
    took = duration((report.ended - report.started).total_seconds())
    mode = f", mode {report.mode.value}" if report.mode else ""
    facts = {
        "Run": harmless(report.run_id),
        "Disk": ", ".join(
            filter(
                None,
                (f"'{printable(disk.name)}'", printable(disk.model), size(disk.size), f"UUID {printable(disk.uuid)}"),
            )
        ),
        "Began": f"{moment(report.started)} ({ago(report.started, now)}), {_TRIGGERS[report.trigger.value]}{mode}",
        "Took": took,
        "Copied": f"{counted(files, 'file')}, {size(copied)}" if files else "nothing new",
        "Database": moment(report.dump_time) if report.dump_time else "no dump",
        "Free": size(report.free_bytes) if report.free_bytes is not None else "",
        "Unplug": _unplug(report),
    }
    for name, text in facts.items():
        if text:
            yield from wrapped(f"{name:<10}{text}", columns, indent=10)


def _unplug(report: RunReport) -> str:
    if report.powered_off:
        return "it was unmounted and switched off"
    return "it was unmounted: safe" if report.safe_to_unplug else "it was not unmounted by this run"


def _title(text: str, columns: int) -> Iterator[Line]:
    yield ()
    yield from wrapped(text, columns, Tone.STRONG)


def _gravity(finding: Finding) -> int:
    return [Severity.FAILED, Severity.INTERRUPTED, Severity.PARTIAL, Severity.NOTE].index(finding.severity)


def _finding(finding: Finding, columns: int) -> Iterator[Line]:
    word, tone = _SEVERITIES[finding.severity]
    text = sentence(f"{word}: {harmless(finding.message)}")
    yield from wrapped(f"  {text} [{harmless(finding.code)}]", columns, tone, indent=2)
    for item in finding.items:
        yield from wrapped(f"    {harmless(item)}", columns, indent=2)
    if finding.items and (left := finding.count - len(finding.items)) > 0:
        yield line(f"    and {left:,} more")
    if finding.hint:
        yield from wrapped(f"    To do: {harmless(finding.hint)}", columns, indent=2)


def _verdict(report: RunReport, columns: int) -> Iterator[Line]:
    verdict = report.verdict
    assert verdict is not None
    tone = {Restorable.YES: Tone.GOOD, Restorable.EXCEPT: Tone.WARN, Restorable.NO: Tone.BAD}[verdict.restorable]
    for text in verdict_lines(verdict, report.disk.name, today=report.ended):
        yield from wrapped(f"  {text}", columns, tone, indent=2)
    for item in verdict.exceptions:
        yield from wrapped(f"    {harmless(item)}", columns, indent=2)
    if verdict.exceptions and (left := verdict.exception_count - len(verdict.exceptions)) > 0:
        yield line(f"    and {left:,} more")


def _stage(stage: StageReport, columns: int) -> Iterator[Line]:
    rate = f", {size(stage.bytes / stage.seconds)}/s" if stage.bytes and stage.seconds >= 1 else ""
    text, took = f"  {harmless(stage.summary) or STAGE_WORDS[stage.stage]}", f"{duration(stage.seconds)}{rate}"
    if cells(text) + cells(took) + 2 <= columns:
        yield (Part(f"{text}  "), Part(took, Tone.DIM))
        return
    yield from wrapped(text, columns, indent=2)
    yield from wrapped(f"    {took}", columns, Tone.DIM)


def _next(report: RunReport, columns: int) -> Iterator[Line]:
    todo = outcome_message(report).todo
    if not todo and report.outcome is Outcome.OK:
        return
    yield from _title("What to do now", columns)
    for text in todo:
        yield from wrapped(f"  {harmless(text)}", columns, indent=2)
    if report.outcome is Outcome.PARTIAL:  # of the others it is said there
        command = f"sudo immich-usb-backup retry {harmless(report.run_id)}"
        yield from Note("  Once that is done, what is missing is tried again by:", command=command).lines(columns)


def view_lines(run: RunView, now: datetime, columns: int) -> Iterator[Line]:
    """What everybody may know of a run: for who may not read the whole report, and for a run that goes on."""
    yield from wrapped(harmless(run.headline) or printable(run.name), columns, TONES.get(run.outcome, Tone.STRONG))
    yield ()
    ended = f"ended {ago(run.ended, now)}" if run.ended else "it goes on"
    began = moment(run.started) if run.started else "-"
    yield from wrapped(f"{'Run':<10}{harmless(run.run)}", columns, indent=10)
    yield from wrapped(f"{'Disk':<10}'{printable(run.name)}', UUID {printable(run.disk)}", columns, indent=10)
    yield from wrapped(f"{'Began':<10}{began}, {ended}", columns, indent=10)
    for text in (run.body, run.todo):
        lines = text.split("\n") if text else []
        yield from ((),) if lines else ()
        for part in lines:
            yield from wrapped(harmless(part), columns, indent=2)
