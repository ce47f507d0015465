"""Our up-case table is the one that mkfs.exfat writes to every disk."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

from immich_usb_backup.policy.upcase import upcase, upcase_text

UP_CASE_ENTRY = 0x82
UNCHANGED = 0xFFFF
"""Before a number: so many units in a row are their own upper case."""


def _units_in(image: bytes) -> list[int]:
    heap, _, root = struct.unpack_from("<III", image, 88)
    sector = 1 << image[108]
    cluster = sector << image[109]
    start = heap * sector + (root - 2) * cluster
    entries = (image[at : at + 32] for at in range(start, start + cluster, 32))
    first, length = next(struct.unpack_from("<IQ", entry, 20) for entry in entries if entry[0] == UP_CASE_ENTRY)
    table = heap * sector + (first - 2) * cluster
    return [unit for (unit,) in struct.iter_unpack("<H", image[table : table + length])]


def _unpacked(packed: list[int]) -> list[int]:
    units: list[int] = []
    rest = iter(packed)
    for unit in rest:
        count = next(rest, None) if unit == UNCHANGED else None
        units.extend([unit] if count is None else range(len(units), len(units) + count))
    return units


def test_every_unit_is_as_on_a_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(4 << 20)
    subprocess.run(["mkfs.exfat", str(disk)], check=True, capture_output=True, timeout=30)
    units = _unpacked(_units_in(disk.read_bytes()))
    assert len(units) == 0x10000
    assert [(hex(unit), hex(up)) for unit, up in enumerate(units) if upcase(unit) != up] == []
    letters = [unit for unit in range(0x10000) if not 0xD800 <= unit < 0xE000]
    assert [ord(c) for c in upcase_text("".join(map(chr, letters)))] == [units[unit] for unit in letters]
