"""When the disk need not be walked."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from immich_usb_backup.model import Mode
from immich_usb_backup.policy.disk_state import DiskState
from immich_usb_backup.policy.manifest import DiskRecord, Fingerprint
from immich_usb_backup.policy.trust import reasons_to_walk

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
PRINT = Fingerprint(100, (("state.json", False, 300, 7),))
STATE = DiskState(server_id="s", server_name="n", generation="g", run_id="r", since=NOW, writing=False)
RECORD = DiskRecord(generation="g", walked=NOW - timedelta(days=29), fingerprint=PRINT)


def _reasons(**change: Any) -> tuple[str, ...]:
    usual: dict[str, Any] = {
        "state": STATE,
        "record": RECORD,
        "fingerprint": PRINT,
        "mode": Mode.QUICK,
        "now": NOW,
        "walk_after_days": 30,
    }
    return reasons_to_walk(**(usual | change))


def test_without_doubt_the_disk_is_not_walked() -> None:
    assert _reasons() == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"record": DiskRecord()}, "no record"),
        ({"state": None}, "state file is missing or damaged"),
        ({"state": replace(STATE, writing=True)}, "was not finished"),
        ({"state": replace(STATE, generation="h")}, "without this server's knowing"),
        ({"record": replace(RECORD, fingerprint=None)}, "how it was left"),
        ({"fingerprint": replace(PRINT, free_clusters=99)}, "free room"),
        ({"fingerprint": replace(PRINT, entries=())}, "backup folder"),
        ({"record": replace(RECORD, walked=None)}, "never walked"),
        ({"record": replace(RECORD, walked=NOW - timedelta(days=30))}, "30 days ago"),
        ({"record": replace(RECORD, walked=NOW + timedelta(seconds=1))}, "0 days ago"),
        ({"mode": Mode.VERIFY}, "mode is verify"),
        ({"mode": Mode.FULL}, "mode is full"),
        ({"unclean": True}, "not unmounted properly"),
    ],
)
def test_each_doubt_alone_is_enough(change: dict[str, Any], reason: str) -> None:
    (found,) = _reasons(**change)
    assert reason in found


def test_all_the_doubts_are_given() -> None:
    everything = _reasons(
        state=None,
        fingerprint=replace(PRINT, free_clusters=1),
        record=replace(RECORD, walked=None),
        mode=Mode.FULL,
        unclean=True,
    )
    assert len(everything) == 5


def test_a_walk_on_every_run_can_be_asked_for() -> None:
    assert _reasons(walk_after_days=0) != ()
