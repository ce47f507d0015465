"""What a mail says beyond the run itself: how often it went so, when it last went well, and how the runs before it ended."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st
from tests.support.telling import NOON, make_report

from immich_usb_backup.adapters import mail_template, news_json
from immich_usb_backup.model import Finding, Outcome, RunReport, Severity
from immich_usb_backup.policy.letters import RUNS_SHOWN, letter_of, short_text
from immich_usb_backup.policy.news import RECENT_KEPT, Ended, ended, streak
from immich_usb_backup.policy.text import moment

YESTERDAY = moment(NOON - timedelta(days=1))
OUTCOMES = {outcome.value[0]: outcome for outcome in Outcome}


def _run(number: int, days_ago: float, letter: str, **changes: object) -> RunReport:
    finding = Finding(code="disk-full", severity=Severity.FAILED, message="The disk is full", hint="Take a larger one.")
    note = Finding(code=f"note-{number}", severity=Severity.NOTE, message="A note")
    findings = (note,) if letter == "o" else (finding, note)
    when = NOON - timedelta(days=days_ago)
    report = make_report(f"r{number}", outcome=OUTCOMES[letter], findings=findings, started=when, ended=when)
    return dataclasses.replace(report, **changes)  # type: ignore[arg-type]


def _news(history: str) -> Ended:
    """The last letter is this run; one run a day."""
    runs = [_run(number, len(history) - number - 1, letter) for number, letter in enumerate(history)]
    return ended(runs[-1], reversed(runs))


def test_the_subject_says_how_often_and_since_when() -> None:
    assert letter_of(_news("oof")).subject == "Backup to 'Blue' failed: safe to unplug"
    assert letter_of(_news("ooff")).subject == (
        f"Backup to 'Blue' failed: safe to unplug (2 times in a row since {YESTERDAY})"
    )
    assert letter_of(_news("fof")).subject == "Backup to 'Blue' failed: safe to unplug", "a good one lies between"
    assert letter_of(_news("ooo")).subject == "'Blue' is backed up: safe to unplug"


def test_what_makes_it_another_failure() -> None:
    before, this = _run(1, 1, "f"), _run(2, 0, "f")
    other = dataclasses.replace(this.findings[0], code="disk-failing")
    for changed in (
        dataclasses.replace(before, outcome=Outcome.PARTIAL),
        dataclasses.replace(before, safe_to_unplug=False),
        dataclasses.replace(before, findings=(other,)),
    ):
        assert len(streak(ended(this, [changed]))) == 1
    assert len(streak(ended(this, [before]))) == 2, "notes do not count"


def test_a_mail_has_a_strip_with_what_it_means_and_the_last_good_one() -> None:
    letter = letter_of(_news("oopff"))
    text = mail_template.text_part(letter)
    assert "The last backups to this disk:\n||!XX\n2 of the last 5 backups to this disk had no problem" in text
    assert "| good, ! not everything, X failed." in text
    assert f"It ended like this 2 times in a row since {YESTERDAY}." in text
    assert f"The last backup to this disk without a problem ended on {moment(NOON - timedelta(days=3))}." in text
    page = mail_template.html_part(letter)
    assert [page.count(f">{sign}</span>") for sign in "|!X/"] == [2, 1, 2, 0]
    assert "None of the 1 backup to this disk before it was without a problem." in letter_of(_news("ff")).since


def test_a_first_run_has_no_strip() -> None:
    assert letter_of(_news("f")).history_lines == ()
    assert "last backups" not in mail_template.text_part(letter_of(_news("f")))


def test_a_long_history_is_cut() -> None:
    letter = letter_of(_news("f" * (RECENT_KEPT + 20)))
    assert len(letter.history) == RUNS_SHOWN
    assert letter.subject.endswith(f"(more than {RECENT_KEPT} times in a row)")


def test_a_phone_gets_what_is_wrong_and_what_to_do() -> None:
    lines = short_text(letter_of(_news("of"))).splitlines()
    assert lines[:2] == ["The disk is full.", "Take a larger one."]
    assert "34.0 MB" in short_text(letter_of(_news("oo"))), "where nothing is wrong"
    huge = dataclasses.replace(_run(1, 0, "f").findings[0], message="x" * 9000)
    assert len(short_text(letter_of(Ended(report=_run(1, 0, "f", findings=(huge,)))))) == 1500


@given(st.text(alphabet="opfi", min_size=1, max_size=80))
def test_any_history_comes_through_the_outbox_and_into_a_mail(history: str) -> None:
    news = _news(history)
    assert news_json.load(news_json.dump(news)) == news
    letter = letter_of(news)
    assert letter.history == history[-RUNS_SHOWN:]
    same = len(history) - len(history.rstrip(history[-1])) if history[-1] != "o" else 1
    assert len(streak(news)) == min(same, RECENT_KEPT + 1)
    assert mail_template.html_part(letter).count("</span>") == (len(letter.history) if len(history) > 1 else 0)
