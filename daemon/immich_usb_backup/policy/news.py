"""What the daemon leaves for the notifier: a run that began, one that ended, or a notice. Pure values."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import TypeAlias

from immich_usb_backup.model import Notice, Outcome, RunReport, Severity

RECENT_KEPT = 60
"""Runs of a disk that go with an outcome, so that the notifier, which cannot read the history, can show and count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What is remembered of a run beside a newer one. ``codes`` are those of its findings that were not mere notes."""

    run_id: str
    ended: datetime
    outcome: Outcome
    safe_to_unplug: bool = True
    codes: tuple[str, ...] = ()

    def like(self, other: Brief) -> bool:
        """Whether people would be told the same about both."""
        mine = (self.outcome, self.safe_to_unplug, self.codes)
        return mine == (other.outcome, other.safe_to_unplug, other.codes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """A run is over. ``recent`` are the runs of its disk before it, the oldest first."""

    report: RunReport
    recent: tuple[Brief, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A run has begun; the report says what was known then."""

    report: RunReport


News: TypeAlias = Ended | Begun | Notice


def brief(report: RunReport) -> Brief:
    """A run in brief."""
    serious = {finding.code for finding in report.findings if finding.severity is not Severity.NOTE}
    return Brief(
        run_id=report.run_id,
        ended=report.ended,
        outcome=report.outcome,
        safe_to_unplug=report.safe_to_unplug,
        codes=tuple(sorted(serious)),
    )


def ended(report: RunReport, newest_first: Iterable[RunReport] = ()) -> Ended:
    """A run that is over, with those of ``newest_first`` that ended before it."""
    before = [brief(one) for one in newest_first if one.run_id != report.run_id and one.ended <= report.ended]
    return Ended(report=report, recent=tuple(reversed(before[:RECENT_KEPT])))


def streak(news: Ended) -> tuple[Brief, ...]:
    """This run and those right before it that went wrong in the same way, the oldest first; a good one stands alone."""
    this = brief(news.report)
    if this.outcome is Outcome.OK:
        return (this,)
    same = list(takewhile(this.like, reversed(news.recent)))
    return (*reversed(same), this)


def news_id(news: News) -> str:
    """Under which name it lies in the outbox and in the book of deliveries."""
    if isinstance(news, Notice):
        return news.notice_id
    return news.report.run_id if isinstance(news, Ended) else f"{news.report.run_id}.begun"


def happened(news: News) -> datetime:
    """When it was."""
    if isinstance(news, Notice):
        return news.time
    return news.report.ended if isinstance(news, Ended) else news.report.started
