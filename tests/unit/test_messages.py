"""What people are told: the headline says whether the disk may go and whether the backup is whole."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.support.telling import NOON, make_report

from immich_usb_backup import messages
from immich_usb_backup.adapters import mail_template
from immich_usb_backup.model import DiskVerdict, Finding, Outcome, Progress, Restorable, Severity, Stage
from immich_usb_backup.policy.letters import letter_of
from immich_usb_backup.policy.news import Ended

PARTIAL = Finding(code="no-good-dump", severity=Severity.PARTIAL, message="No dump", hint="Make one.")
GONE = Finding(code="disk-gone", severity=Severity.INTERRUPTED, message="It was unplugged", hint="Plug it in again.")
VERDICT = DiskVerdict(
    restorable=Restorable.EXCEPT,
    dump="d.sql.gz",
    dump_time=NOON - timedelta(hours=10),
    assets=3,
    present=2,
    proven=1,
    reasons=("1 photo is not on the disk",),
    exceptions=("upload/1.jpg: not on the disk",),
    exception_count=1,
)
NOTE = Finding(code="moved-aside", severity=Severity.NOTE, message="3 files moved", hint="never shown")


@pytest.mark.parametrize(
    ("outcome", "safe", "headline"),
    [
        (Outcome.OK, True, "'Blue' is backed up: safe to unplug"),
        (Outcome.PARTIAL, True, "'Blue' is backed up, but not everything: safe to unplug"),
        (Outcome.FAILED, True, "Backup to 'Blue' failed: safe to unplug"),
        (Outcome.FAILED, False, "Backup to 'Blue' failed: it may still be mounted, do not just unplug it"),
        (Outcome.INTERRUPTED, True, "Backup to 'Blue' was interrupted: safe to unplug"),
    ],
)
def test_the_headline_says_it_all(outcome: Outcome, safe: bool, headline: str) -> None:
    assert messages.headline(make_report(outcome=outcome, safe_to_unplug=safe)) == headline


def test_a_pulled_disk_is_not_called_safe_nor_mounted() -> None:
    report = make_report(outcome=Outcome.INTERRUPTED, safe_to_unplug=False, findings=(GONE,))
    assert messages.headline(report) == "Backup to 'Blue' was interrupted: it was unplugged too early"


def test_what_is_wrong_comes_first_and_what_to_do_is_said_once() -> None:
    message = messages.outcome_message(make_report(outcome=Outcome.PARTIAL, findings=(NOTE, PARTIAL, PARTIAL)))
    assert message.lines[0] == "No dump."
    assert message.todo == ("Make one.",)
    assert "3 files moved." in message.lines
    assert "12 files (34.0 MB) copied in 3 min 0 s." in message.lines
    assert "5.0 GB are free on the disk." in message.lines


def test_what_the_disk_is_worth_comes_after_what_is_wrong_and_before_the_rest() -> None:
    report = make_report(outcome=Outcome.PARTIAL, findings=(NOTE, PARTIAL), verdict=VERDICT)
    message = messages.outcome_message(report)
    assert message.lines[:3] == ("No dump.", *message.verdict)
    sentence, restorable = message.verdict
    assert sentence.startswith("2 of 3 photos in the dump of ")
    assert sentence.endswith(" are on 'Blue'; 1 has been read back so far.")
    assert restorable == "Restorable from this disk: yes, except 1 file: 1 photo is not on the disk."
    assert "3 files moved." in message.lines[3:]
    assert sentence in message.text


def test_a_run_that_came_to_no_verdict_says_nothing_of_it() -> None:
    letter = letter_of(Ended(report=make_report()))
    assert messages.outcome_message(make_report()).verdict == ()
    assert "would bring back" not in mail_template.text_part(letter) + mail_template.html_part(letter)


def test_a_mail_gives_the_verdict_a_place_of_its_own() -> None:
    report = make_report(verdict=VERDICT)
    sentence = messages.outcome_message(report).verdict[0]
    letter = letter_of(Ended(report=report))
    text = mail_template.text_part(letter)
    assert f"\n\nWhat this disk would bring back:\n{sentence}\n" in text
    assert text.count(sentence) == 1
    page = mail_template.html_part(letter)
    assert (
        page.index("<h1") < page.index("What this disk would bring back</h2>") < page.index("2 of 3 photos in the dump")
    )
    assert page.count("2 of 3 photos in the dump") == 1


def test_long_lists_are_cut_and_counted() -> None:
    many = Finding(
        code="x", severity=Severity.PARTIAL, message="Failed", items=tuple(f"{n}.jpg" for n in range(50)), count=1234
    )
    lines = messages.outcome_message(make_report(findings=(many,))).lines
    assert lines[1] == "  - 0.jpg"
    assert "  - and 1,214 more" in lines
    assert messages.finding_line(many) == "Failed (0.jpg, 1.jpg, 2.jpg and 1,231 more)."


def test_nothing_new_is_said_so() -> None:
    assert "Nothing new had to be copied (3 min 0 s)." in messages.outcome_message(make_report(stages=())).lines


@pytest.mark.parametrize("stage", Stage)
def test_every_stage_has_words(stage: Stage) -> None:
    assert messages.progress_line(Progress(run_id="1", disk_name="Blue", stage=stage))


def test_the_flush_says_how_much_is_left() -> None:
    progress = Progress(run_id="1", disk_name="Blue", stage=Stage.FLUSH, done=1_000, total=3_000, percent=33)
    assert messages.progress_line(progress) == "writing the last data to the disk, 2.0 kB left, 33 %"
