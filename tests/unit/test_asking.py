"""The commands that ask the service, as a person reads them: words, exit codes, and nothing hostile on the terminal."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.telling import HOSTILE_NAMES, make_report

from immich_usb_backup.__main__ import main
from immich_usb_backup.adapters import plan_json
from immich_usb_backup.cli import asking
from immich_usb_backup.errors import BusCallFailed, BusLost, DeadlineMissed
from immich_usb_backup.model import Finding, Mode, PlanCategory, PlanReport, Severity

COMMANDS = ("plan", "backup", "eject", "approve", "adopt")
OURS = "io.github.immich_usb_backup1.Error"
DBUS = "org.freedesktop.DBus.Error"
HELD = Finding(
    code="deletions-held",
    severity=Severity.PARTIAL,
    message="412 files would be deleted",
    hint="sudo immich-usb-backup approve Blue",
)
CATEGORIES = (
    PlanCategory(code="new", count=12, bytes=34_500_000, items=tuple(f"upload/{n}.jpg" for n in range(10))),
    PlanCategory(code="changed", count=1, bytes=500_000, items=("library/a.jpg",)),
    PlanCategory(code="moved", count=3, items=("library/b.jpg",)),
    PlanCategory(code="renamed", count=0),
    PlanCategory(code="unchanged", count=41_203, bytes=10**12),
    PlanCategory(code="unrepresentable", count=1, items=("library/\x1b[2Jfifo",)),
)


def report(*findings: Finding, categories: tuple[PlanCategory, ...] = CATEGORIES, name: str = "Blue") -> PlanReport:
    return PlanReport(disk=make_report(name=name).disk, mode=Mode.QUICK, categories=categories, findings=findings)


Answer = Callable[[object], list[tuple[str, ...]]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """What the service answers, or how the call fails. Returns what it will have been asked."""

    def answers(what: object) -> list[tuple[str, ...]]:
        asked: list[tuple[str, ...]] = []

        async def call(member: str, words: list[str], timeout: float) -> object:
            asked.append((member, *words))
            if isinstance(what, Exception):
                raise what
            return what

        monkeypatch.setattr(asking, "_call", call)
        return asked

    return answers


def test_a_plan_in_plain_words(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    asked = answer(plan_json.dump(report(HELD)))
    assert main(["plan", "Blue", "--mode", "verify"]) == 1
    assert asked == [("Plan", "Blue", "verify")]
    assert capsys.readouterr().out.splitlines() == [
        "Plan for 'Blue', mode quick:",
        "new: 12 files, 34.5 MB",
        *(f"    upload/{n}.jpg" for n in range(5)),
        "    and 7 more (--all shows more)",
        "changed: 1 file, 500.0 kB",
        "    library/a.jpg",
        "moved on the disk: 3 files",
        "    library/b.jpg",
        "    and 2 more",
        "unchanged: 41,203 files, 1.0 TB",
        "cannot be stored: 1 file",
        "    library/\\u001b[2Jfifo",
        "Problem: 412 files would be deleted.",
        "    To do: sudo immich-usb-backup approve Blue",
        "13 files (35.0 MB) would be copied; nothing was changed.",
    ]


def test_all_items_of_a_plan(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer(plan_json.dump(report()))
    assert main(["plan", "Blue", "--all"]) == 0
    said = capsys.readouterr().out
    assert "    upload/9.jpg\n    and 2 more\n" in said


def test_a_plan_with_nothing_but_notes_is_a_good_one(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    note = dataclasses.replace(HELD, severity=Severity.NOTE, message="A note", hint="")
    answer(plan_json.dump(report(note, categories=())))
    assert main(["plan", "Blue"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Note: A note.",
        "0 files (0 B) would be copied; nothing was changed.",
    ]


def test_a_plan_for_programs(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer(plan_json.dump(report(HELD)))
    assert main(["plan", "Blue", "--json"]) == 1
    values = json.loads(capsys.readouterr().out)
    assert [category["count"] for category in values["categories"]] == [12, 1, 3, 0, 41_203, 1]
    assert values["findings"][0]["code"] == "deletions-held"


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_no_name_reaches_the_terminal_as_it_is(answer: Answer, capsys: pytest.CaptureFixture[str], name: str) -> None:
    hostile = PlanCategory(code=name, count=2, items=(name,))
    finding = dataclasses.replace(HELD, message=name, hint=name, items=(name,), count=2)
    answer(plan_json.dump(report(finding, categories=(hostile,), name=name)))
    main(["plan", "Blue"])
    answer(name)
    for command in ("backup", "adopt"):
        assert main([command, "Blue"]) == 0
    answer(BusCallFailed(f"{OURS}.Failed", name))
    main(["backup", "Blue"])
    said = capsys.readouterr()
    assert all(line.isprintable() for line in (said.out + said.err).split("\n"))


def test_a_backup_is_said_to_begin(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    asked = answer("Blue")
    assert main(["backup", "ABCD-0001"]) == 0
    assert asked == [("Backup", "ABCD-0001", "")]
    assert capsys.readouterr().out.startswith("The backup to 'Blue' begins")


def test_an_approval_says_how_many_and_what_follows(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    asked = answer(1412)
    assert main(["approve", "Blue"]) == 0
    assert asked == [("Approve", "Blue")]
    said = capsys.readouterr().out
    assert said.startswith("1,412 deletions approved.\n")
    assert "plugged in" in said


def test_an_approval_of_nothing_is_a_problem(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    answer(0)
    assert main(["approve", "Blue"]) == 1
    assert "nothing to approve" in capsys.readouterr().out


def test_a_disk_that_may_be_taken_over(answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    asked = answer("Blue")
    assert main(["adopt", "Blue"]) == 0
    assert asked == [("Adopt", "Blue")]
    assert "'Blue' may be taken over" in capsys.readouterr().out


def test_a_link_to_a_device_node_is_followed(answer: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer("Blue")
    monkeypatch.setattr("os.path.realpath", {"/dev/disk/by-label/BLUE": "/dev/sdb1"}.__getitem__)
    assert main(["backup", "/dev/disk/by-label/BLUE"]) == 0
    assert asked == [("Backup", "/dev/sdb1", "")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (BusCallFailed(f"{OURS}.NoSuchDisk", "No disk 'x' is plugged in."), 75, "No disk 'x' is plugged in."),
        (BusCallFailed(f"{OURS}.AmbiguousDisk", "'x' could be 2 disks."), 1, "'x' could be 2 disks."),
        (BusCallFailed(f"{OURS}.Busy", "'x' is being backed up now."), 1, "is being backed up now"),
        (BusCallFailed(f"{OURS}.Failed", "it is damaged"), 1, "it is damaged"),
        (BusCallFailed(f"{DBUS}.AccessDenied", "Rejected send message, 4 matched rules"), 1, "Run it with sudo."),
        (BusCallFailed(f"{DBUS}.ServiceUnknown", "was not provided"), 69, "systemctl status immich-usb-backup"),
        (BusCallFailed(f"{DBUS}.NoReply", "disconnected"), 69, "systemctl status immich-usb-backup"),
        (BusCallFailed(f"{DBUS}.UnknownMethod", "no such method"), 69, "systemctl restart immich-usb-backup"),
        (BusCallFailed(f"{DBUS}.Failed", "The service made a mistake"), 1, "made a mistake"),
        (BusLost("The system bus cannot be reached"), 69, "cannot be reached"),
        (DeadlineMissed("Plan did not answer within 3600 seconds"), 69, "did not answer"),
    ],
)
def test_every_refusal_is_a_plain_message_and_an_exit_code(
    answer: Answer, capsys: pytest.CaptureFixture[str], command: str, error: Exception, code: int, words: str
) -> None:
    answer(error)
    assert main([command, "x"]) == code
    said = capsys.readouterr()
    assert words in said.err
    assert not said.out
    assert "Traceback" not in said.err


@pytest.mark.parametrize("arguments", [["plan"], ["plan", "x", "--mode", "fast"], ["approve"], ["adopt", "a", "b"]])
def test_wrong_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
