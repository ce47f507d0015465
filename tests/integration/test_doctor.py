"""The checks of `doctor` that ask others, on the real ones: a system bus with UDisks2 and udev."""

from __future__ import annotations

import pytest

from immich_usb_backup.doctor import programs, system
from immich_usb_backup.doctor.checked import Result
from immich_usb_backup.doctor.machine import Machine
from tests.support import host


@pytest.fixture(autouse=True)
def _on_this_bus(bus: host.Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(bus.variable, bus.address)


def test_udisks_answers_with_its_version() -> None:
    found = programs.udisks(Machine())
    assert (found.result, found.text.startswith("version 2.")) == (Result.OK, True), found


def test_udev_is_asked_and_a_machine_without_a_disk_is_no_problem() -> None:
    assert system.udev_loaded(Machine()).result is Result.UNSEEN


def test_a_service_that_does_not_run_is_a_problem_and_no_error() -> None:
    found = system.service_name(Machine())
    assert found.result is Result.PROBLEM
    assert "nobody answers" in found.text


def test_rsync_and_exfat_are_found_where_they_are() -> None:
    assert programs.rsync(Machine()).result is Result.OK
    assert programs.exfat(Machine()).result is Result.OK
    assert programs.fsck(Machine()).result is Result.OK
