"""Which partitions are looked at, and that a rejection has all its reasons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.fakes import Stick, partition_of, seen_stick

from immich_usb_backup.policy.eligibility import judge_partition, judge_seen, worth_a_line

SEEN = seen_stick()
USB = ("usb",)


def test_a_usb_stick_with_exfat_is_accepted() -> None:
    assert judge_seen(SEEN, transports=USB).accepted


def test_all_reasons_come_together() -> None:
    verdict = judge_seen(replace(SEEN, transport="ata", file_system="ext4"), transports=USB)
    assert verdict.reasons == ("it is connected by ata, allowed is usb", "it holds ext4, not exFAT")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"file_system": ""}, "it holds no file system, not exFAT"),
        ({"transport": ""}, "it is connected by an unknown bus, allowed is usb"),
        ({"uuid": ""}, "its file system has no UUID"),
        ({"has_partitions": True, "file_system": ""}, "it is divided into partitions, which are looked at one by one"),
        ({"file_system": "vf\nat\x1b[2J"}, "it holds vf\\nat\\u001b[2J, not exFAT"),
    ],
)
def test_each_reason_is_said_in_words(changes: dict[str, object], reason: str) -> None:
    assert judge_seen(replace(SEEN, **changes), transports=USB).reasons == (reason,)  # type: ignore[arg-type]


def test_other_buses_are_a_choice() -> None:
    card = replace(SEEN, transport="mmc")
    assert not judge_seen(card, transports=USB).accepted
    assert judge_seen(card, transports=("usb", "mmc")).accepted


@pytest.mark.parametrize(
    ("transport", "file_system", "worth"),
    [("usb", "ext4", True), ("ata", "exfat", True), ("ata", "ext4", False), ("usb", "", False), ("loop", "", False)],
)
def test_only_what_somebody_may_have_meant_for_us_gets_a_line(transport: str, file_system: str, worth: bool) -> None:
    assert worth_a_line(replace(SEEN, transport=transport, file_system=file_system)) is worth


def test_udisks_must_speak_of_the_same_file_system() -> None:
    partition = partition_of(Stick(seen=SEEN, root=Path("/")))
    assert judge_partition(SEEN, partition, transports=USB).accepted
    assert judge_partition(SEEN, replace(partition, uuid=SEEN.uuid.lower()), transports=USB).accepted
    other = replace(partition, uuid="X", file_system="vfat", device_number=1, connection_bus="ieee1394")
    assert len(judge_partition(SEEN, other, transports=USB).reasons) == 4


def test_a_card_reader_is_sdio_for_udisks_and_mmc_for_udev() -> None:
    card = replace(SEEN, transport="mmc")
    partition = replace(partition_of(Stick(seen=card, root=Path("/"))), connection_bus="sdio")
    assert judge_partition(card, partition, transports=("mmc",)).accepted
    loop = replace(partition, connection_bus="")
    assert judge_partition(card, loop, transports=("mmc",)).accepted
