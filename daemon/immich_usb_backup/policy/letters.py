"""What people read in a mail or a pushed message: an outcome with how the runs before it ended, or a notice."""

from __future__ import annotations

from dataclasses import dataclass

from immich_usb_backup import messages
from immich_usb_backup.model import Notice, Outcome, RunReport
from immich_usb_backup.policy.cells import plain
from immich_usb_backup.policy.news import RECENT_KEPT, Brief, Ended, streak
from immich_usb_backup.policy.status_words import legend, strip
from immich_usb_backup.policy.text import counted, harmless, moment
from immich_usb_backup.policy.views import letter as outcome_letter

RUNS_SHOWN = 30
_ANY_WIDTH = 1000
_SHORT = 1500
"""Characters that every service takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """All of it, on clean lines. ``subject`` says it all; ``tone`` is an outcome's name or a notice's kind; ``problems`` are
    what is wrong, ``verdict`` what the disk is worth, ``history`` a letter for each of the disk's last runs, the oldest
    first, ``since`` how long it has been going wrong, ``facts`` the rest, ``small`` what tells one run from another. Lines that begin with ``  - `` name a file."""

    letter_id: str
    tone: str
    subject: str
    headline: str
    problems: tuple[str, ...] = ()
    verdict: tuple[str, ...] = ()
    history: str = ""
    since: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()
    todo: tuple[str, ...] = ()
    small: tuple[str, ...] = ()

    @property
    def history_lines(self) -> tuple[str, ...]:
        """The last runs in characters, with what these mean; nothing where there was only this one."""
        if len(self.history) < 2:
            return ()
        return (plain(strip(self.history, RUNS_SHOWN)), *self.history_words, *self.since)

    @property
    def history_words(self) -> tuple[str, ...]:
        """How the last runs ended, in words."""
        good = self.history.count("o")
        count = (
            f"{good} of the last {len(self.history)} backups to this disk had no problem; the newest is at the right"
        )
        return (f"{count}.", *(f"{plain(line)}." for line in legend([self.history], _ANY_WIDTH)))


def letter_of(news: Ended | Notice) -> Letter:
    """The letter about something."""
    return _of_notice(news) if isinstance(news, Notice) else _of_run(news)


def _of_notice(notice: Notice) -> Letter:
    small = [f"Server {notice.server}, {moment(notice.time)}"]
    if notice.disk_uuid:
        small.append(f"Disk '{notice.disk_name}' (file system {notice.disk_uuid})")
    return Letter(
        letter_id=notice.notice_id,
        tone=notice.kind.value,
        subject=harmless(notice.headline),
        headline=harmless(notice.headline),
        problems=_clean(notice.lines),
        todo=_clean(notice.todo),
        small=_clean(small),
    )


def _of_run(news: Ended) -> Letter:
    report = news.report
    message = messages.outcome_message(report)
    again = _again(news)
    history = [*(one.outcome for one in news.recent), report.outcome][-RUNS_SHOWN:]
    return Letter(
        letter_id=report.run_id,
        tone=report.outcome.value,
        subject=harmless(f"{message.headline} ({again})" if again else message.headline),
        headline=harmless(message.headline),
        problems=_clean(message.problems),
        verdict=_clean(message.verdict),
        history="".join(map(outcome_letter, history)),
        since=_since_when(news, again),
        facts=_clean(message.facts),
        todo=_clean(message.todo),
        small=_clean(_which(report)),
    )


def _again(news: Ended) -> str:
    """``7 times in a row since 14 November 2026, 14:02``; empty for the first of its kind."""
    same = streak(news)
    if len(same) < 2:
        return ""
    if len(same) > RECENT_KEPT:
        return f"more than {RECENT_KEPT} times in a row"
    return f"{len(same)} times in a row since {moment(same[0].ended)}"


def _since_when(news: Ended, again: str) -> tuple[str, ...]:
    if news.report.outcome is Outcome.OK:
        return ()
    good = _last_good(news.recent)
    return (f"It ended like this {again}.", good) if again else ((good,) if news.recent else ())


def _last_good(recent: tuple[Brief, ...]) -> str:
    good = next((one for one in reversed(recent) if one.outcome is Outcome.OK), None)
    if good is None:
        return f"None of the {counted(len(recent), 'backup')} to this disk before it was without a problem."
    return f"The last backup to this disk without a problem ended on {moment(good.ended)}."


def _which(report: RunReport) -> list[str]:
    disk = report.disk
    kind = " ".join(filter(None, (disk.model, disk.serial)))
    return [
        f"Server {report.server}, {moment(report.started)} to {moment(report.ended)}",
        f"Disk '{disk.name}' (file system {disk.uuid}{', ' + kind if kind else ''})",
        f"Run {report.run_id}",
    ]


def _clean(lines: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """A line end inside one is shown and not obeyed: a file name could add lines of its own."""
    return tuple(map(harmless, lines))


def short_text(letter: Letter) -> str:
    """What fits below the subject on a phone: what is wrong, what to do, what the disk is worth, and else what was copied."""
    text = "\n".join((*letter.problems, *letter.todo, *letter.verdict) or letter.facts)
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"
