"""How a run ended is decided by the worst that it met."""

from __future__ import annotations

import itertools

import pytest

from immich_usb_backup.errors import DiskFull, DiskGone, FlushFailed, Interrupted
from immich_usb_backup.model import Finding, Outcome, Severity
from immich_usb_backup.policy.outcome import ITEMS_KEPT, conclude, finding_of, listing

BY_SEVERITY = {
    Severity.NOTE: Outcome.OK,
    Severity.PARTIAL: Outcome.PARTIAL,
    Severity.FAILED: Outcome.FAILED,
    Severity.INTERRUPTED: Outcome.INTERRUPTED,
}


def test_nothing_to_say_is_ok() -> None:
    assert conclude([]) is Outcome.OK


@pytest.mark.parametrize("pair", [*itertools.product(Severity, repeat=2)])
def test_the_worst_decides_whatever_the_order(pair: tuple[Severity, Severity]) -> None:
    findings = [Finding(code="x", severity=severity, message="x") for severity in pair]
    worst = max(pair, key=list(BY_SEVERITY).index)
    assert conclude(findings) is conclude(reversed(findings)) is BY_SEVERITY[worst]


@pytest.mark.parametrize("error", [DiskGone("x"), Interrupted("x")])
def test_a_run_that_was_cut_short_is_interrupted(error: DiskGone | Interrupted) -> None:
    assert finding_of(error).severity is Severity.INTERRUPTED


@pytest.mark.parametrize("error", [DiskFull("no room"), FlushFailed("lost")])
def test_any_other_error_fails_the_run_and_says_what_to_do(error: DiskFull | FlushFailed) -> None:
    finding = finding_of(error)
    assert (finding.severity, finding.message, finding.code) == (Severity.FAILED, error.message, error.code)
    assert finding.hint


def test_a_million_files_become_a_few_hundred_harmless_names_and_their_number() -> None:
    items, count = listing((b"a\n\x1b%d" % number, "reason") for number in range(1000))
    assert (len(items), count) == (ITEMS_KEPT, 1000)
    assert items[0] == "a\\n\\u001b0: reason"
