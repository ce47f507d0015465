"""What to do about a disk that was not unmounted properly."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from immich_usb_backup.config import Disks
from immich_usb_backup.model import Health, Severity
from immich_usb_backup.policy.file_system import Decision, Option, Step, decide, first_step

OPTIONS: tuple[Option, ...] = get_args(Option)


def test_the_options_are_those_of_the_configuration() -> None:
    assert get_args(Disks.model_fields["check_file_system"].annotation) == OPTIONS
    assert Disks().check_file_system == "repair-own"


@pytest.mark.parametrize(
    ("option", "ours", "step"),
    [
        ("repair-own", True, Step.REPAIR),
        ("repair-own", False, Step.CHECK),
        ("check", True, Step.CHECK),
        ("check", False, Step.CHECK),
        ("never", True, Step.PROCEED),
        ("never", False, Step.PROCEED),
    ],
)
def test_where_it_begins(option: Option, ours: bool, step: Step) -> None:
    assert first_step(option, ours=ours) is step


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("ours", [True, False])
def test_a_clean_disk_is_written_to_without_a_word(option: Option, ours: bool) -> None:
    assert decide(Health.CLEAN, "", option=option, ours=ours) == Decision(Step.PROCEED)


def test_a_damaged_disk_is_refused_with_a_hint() -> None:
    decision = decide(Health.DAMAGED, "1 error", option="check", ours=False)
    assert decision.step is Step.REFUSE
    assert decision.finding is not None
    assert decision.finding.code == "file-system-damaged"
    assert decision.finding.severity is Severity.FAILED
    assert "1 error" in decision.finding.message
    assert "fsck.exfat" in decision.finding.hint


@pytest.mark.parametrize("health", [Health.DAMAGED, Health.DIRTY])
def test_only_our_own_unclean_unmount_is_repaired_and_only_where_that_is_wanted(health: Health) -> None:
    repaired = {
        (option, ours)
        for option, ours in itertools.product(OPTIONS, (True, False))
        if decide(health, "", option=option, ours=ours).step is Step.REPAIR
    }
    assert repaired == {("repair-own", True)}


def test_damage_after_our_last_state_is_repaired_and_an_unclean_mark_is_left() -> None:
    damaged = {
        option: decide(Health.DAMAGED, "", option=option, ours=False, carries_ours=True).step for option in OPTIONS
    }
    assert damaged == {"repair-own": Step.REPAIR, "check": Step.REFUSE, "never": Step.REFUSE}
    assert decide(Health.DIRTY, "", option="repair-own", ours=False, carries_ours=True).step is Step.PROCEED


def test_a_repair_is_tried_once() -> None:
    assert decide(Health.DAMAGED, "", option="repair-own", ours=True, repair_tried=True).step is Step.REFUSE
    assert decide(Health.DIRTY, "", option="repair-own", ours=True, repair_tried=True).step is Step.PROCEED


@pytest.mark.parametrize(
    ("health", "code"),
    [
        (Health.REPAIRED, "file-system-repaired"),
        (Health.DIRTY, "file-system-unclean"),
        (Health.UNKNOWN, "file-system-unchecked"),
    ],
)
def test_what_is_not_damaged_is_written_to_and_spoken_of(health: Health, code: str) -> None:
    decision = decide(health, "why", option="check", ours=False)
    assert decision.step is Step.PROCEED
    assert decision.finding is not None
    assert (decision.finding.code, decision.finding.severity) == (code, Severity.NOTE)
    assert "why" in decision.finding.message
