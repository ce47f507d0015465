"""exFAT images written byte by byte: no mount, no loop device, no root; and damage put into them on purpose."""

from __future__ import annotations

import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

DIRTY, MEDIA_FAILURE = 0x02, 0x04
FLAGS_AT = 0x6A

_SECTOR, _ENTRY = 512, 32
_FOLDER, _ARCHIVE = 0x10, 0x20
_CONTIGUOUS = 0x03


@dataclass(frozen=True)
class Node:
    """A file or a folder: where its entries are (an offset in the image), how many follow the first, its clusters."""

    entries_at: int
    following: int
    first_cluster: int
    clusters: int


class Exfat:
    """An exFAT file system in a file, opened for changes; clusters are given out one after the other and never freed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("r+b")
        boot = self._read(0, _SECTOR)
        self._fat, _, heap, self._count, self._root = struct.unpack_from("<IIIII", boot, 0x50)
        self._heap = heap * _SECTOR
        self.cluster = _SECTOR << boot[0x6D]
        self._bitmap = next(
            struct.unpack_from("<I", entry, 20)[0]
            for entry in (self._read(self._at(self._root) + n * _ENTRY, _ENTRY) for n in range(8))
            if entry[0] == 0x81
        )
        self._next = self._root + 1

    @classmethod
    def make(cls, path: Path, *, mib: int = 16) -> Self:
        """A new, empty file system."""
        with path.open("wb") as file:
            file.truncate(mib << 20)
        subprocess.run(["mkfs.exfat", "-c", "4K", "-L", "Blue", path], check=True, capture_output=True)
        return cls(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def serial(self) -> str:
        """As udev writes it."""
        (number,) = struct.unpack("<I", self._read(0x64, 4))
        return f"{number >> 16:04X}-{number & 0xFFFF:04X}"

    @property
    def flags(self) -> int:
        """The volume's flags."""
        return int(struct.unpack("<H", self._read(FLAGS_AT, 2))[0])

    @flags.setter
    def flags(self, value: int) -> None:
        self._write(FLAGS_AT, struct.pack("<H", value))

    def folder(self, name: str, parent: Node | None = None) -> Node:
        """Make a folder of one cluster."""
        return self._make(name, parent, clusters=1, attributes=_FOLDER)

    def file(self, name: str, parent: Node | None = None, *, clusters: int = 3) -> Node:
        """Make a file of whole clusters."""
        return self._make(name, parent, clusters=clusters, attributes=_ARCHIVE)

    # --- damage -----------------------------------------------------------------------

    def free(self, node: Node) -> None:
        """Its clusters count as free: the bitmap was not written any more."""
        for number in range(node.first_cluster, node.first_cluster + node.clusters):
            self._set_bit(number, used=False)

    def spoil_checksum(self, node: Node) -> None:
        """Its entries were written in part."""
        self._write(node.entries_at + 2, b"\0\0")

    def litter(self, folder: Node) -> None:
        """An entry of an unknown type in a folder: a cluster that was never cleared."""
        self._write(self._at(folder.first_cluster), b"\xfe" + bytes(31))

    def share(self, node: Node, victim: Node) -> None:
        """It says that it has the other's clusters."""
        self._write_entries(node.entries_at, self._entries(node), first=victim.first_cluster)

    def odd_size(self, folder: Node) -> None:
        """A folder whose size is no number of clusters: fsck finds this and cannot repair it."""
        self._write_entries(folder.entries_at, self._entries(folder), size=1000)

    def spoil_boot_region(self) -> None:
        """The first sector does not fit its checksum."""
        self._write(0x1A0, b"\x55")

    # --- bytes ------------------------------------------------------------------------

    def _make(self, name: str, parent: Node | None, *, clusters: int, attributes: int) -> Node:
        first, self._next = self._next, self._next + clusters
        for number in range(first, first + clusters):
            self._set_bit(number, used=True)
        self._write(self._at(first), bytes(clusters * self.cluster))
        entries = _entry_set(name, attributes, first, clusters * self.cluster)
        place = self._free_place(parent.first_cluster if parent else self._root)
        self._write(place, entries)
        return Node(place, len(entries) // _ENTRY - 1, first, clusters)

    def _free_place(self, cluster: int) -> int:
        content = self._read(self._at(cluster), self.cluster)
        return self._at(cluster) + next(n for n in range(0, self.cluster, _ENTRY) if content[n] == 0)

    def _entries(self, node: Node) -> bytearray:
        return bytearray(self._read(node.entries_at, _ENTRY * (node.following + 1)))

    def _write_entries(
        self, place: int, entries: bytearray, *, first: int | None = None, size: int | None = None
    ) -> None:
        if first is not None:
            struct.pack_into("<I", entries, _ENTRY + 20, first)
        if size is not None:
            struct.pack_into("<Q", entries, _ENTRY + 8, size)
            struct.pack_into("<Q", entries, _ENTRY + 24, size)
        self._write(place, _with_checksum(entries))

    def _set_bit(self, cluster: int, *, used: bool) -> None:
        place, bit = self._at(self._bitmap) + (cluster - 2) // 8, 1 << (cluster - 2) % 8
        (old,) = self._read(place, 1)
        self._write(place, bytes([old | bit if used else old & ~bit]))

    def _at(self, cluster: int) -> int:
        return int(self._heap + (cluster - 2) * self.cluster)

    def _read(self, place: int, size: int) -> bytes:
        self._file.seek(place)
        return self._file.read(size)

    def _write(self, place: int, content: bytes) -> None:
        self._file.seek(place)
        self._file.write(content)
        self._file.flush()


def _entry_set(name: str, attributes: int, first: int, size: int) -> bytes:
    units = name.encode("utf-16-le")
    parts = [units[n : n + 30].ljust(30, b"\0") for n in range(0, len(units), 30)]
    file = struct.pack("<BBHHxxIIIxxxxx7x", 0x85, 1 + len(parts), 0, attributes, *[0x5A21_0000] * 3)
    head = struct.pack("<BBxBHxxQxxxxIQ", 0xC0, _CONTIGUOUS, len(units) // 2, _name_hash(name), size, first, size)
    names = b"".join(b"\xc1\0" + part for part in parts)
    return _with_checksum(bytearray(file + head + names))


def _with_checksum(entries: bytearray) -> bytes:
    checksum = 0
    for place, byte in enumerate(entries):
        if place not in {2, 3}:
            checksum = ((checksum << 15 | checksum >> 1) + byte) & 0xFFFF
    struct.pack_into("<H", entries, 2, checksum)
    return bytes(entries)


def _name_hash(name: str) -> int:
    found = 0
    for byte in name.upper().encode("utf-16-le"):
        found = ((found << 15 | found >> 1) + byte) & 0xFFFF
    return found
