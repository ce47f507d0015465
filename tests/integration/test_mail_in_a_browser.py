"""The HTML of a mail as people see it, in Debian's Chromium: on a phone and on a desk, light and dark, whatever a disk is called."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest

from immich_usb_backup.adapters.mail_template import html_part
from immich_usb_backup.model import DiskVerdict, Finding, Notice, NoticeKind, Outcome, Restorable, RunReport, Severity
from immich_usb_backup.policy.letters import letter_of
from immich_usb_backup.policy.news import Ended, ended
from tests.integration.test_page_in_a_browser import _MEASURE, DARK, LIGHT, Chromium, _frame
from tests.support.needs import need_chromium
from tests.support.telling import NOON, make_report

WIDTHS = (320, 400, 900)
LONG = "<b onclick='x'>&\"" + "W" * 200
VERDICT = DiskVerdict(restorable=Restorable.EXCEPT, dump="d", assets=9, present=8, reasons=(LONG,), exception_count=1)
NOTICE = Notice(
    notice_id="n", kind=NoticeKind.REMINDER, server="nas", time=NOON, headline=LONG, lines=(LONG,), todo=(LONG,)
)


def _after_many_runs(report: RunReport) -> Ended:
    outcomes = list(Outcome) * 12
    days = [timedelta(days=number + 1) for number in range(len(outcomes))]
    runs = zip(outcomes, days, strict=True)
    return ended(report, [make_report(str(day), outcome=one, ended=NOON - day) for one, day in runs])


def _failed(name: str) -> RunReport:
    finding = Finding(code="x", severity=Severity.FAILED, message=name, hint=name, items=(name,) * 30, count=300)
    return make_report(outcome=Outcome.FAILED, name=name, findings=(finding,), verdict=VERDICT)


MAILS: dict[str, Ended | Notice] = {
    "good": Ended(report=dataclasses.replace(make_report(), verdict=VERDICT)),
    "bad": _after_many_runs(_failed("Blue")),
    "hostile": _after_many_runs(_failed(LONG)),
    "notice": NOTICE,
}


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_every_mail_fits_and_can_be_read_on_any_screen(scheme: int, tmp_path: Path) -> None:
    need_chromium()
    pages = {name: html_part(letter_of(news)) for name, news in MAILS.items()}
    frames = [_frame(f"{name} {width}", page, width, 900) for name, page in pages.items() for width in WIDTHS]
    found = Chromium(tmp_path).asked(_MEASURE.format(frames="".join(frames)), scheme=scheme)
    assert len(found) == len(frames)
    for where, looked in found.items():
        assert (looked["overflow"], looked["wide"], looked["pale"]) == (0, [], []), where
        assert looked["texts"] > 4, where
    backgrounds = {looked["background"] for looked in found.values()}
    assert backgrounds == {"rgb(27, 27, 29)" if scheme == DARK else "rgb(244, 244, 245)"}
