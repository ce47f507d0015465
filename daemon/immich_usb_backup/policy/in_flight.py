"""Which files were being copied when a disk was pulled.

exFAT is not journaled: after a pull a file may stand there with its size and time, and without its content. So before
files are copied, their names are on the medium; they leave when everything has been flushed. A run that finds names
compares the content of those files with the server's, whatever they look like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from immich_usb_backup.policy.plan import Item

BATCH_BYTES = 4_000_000_000
BATCH_FILES = 10_000
"""Between two batches everything is flushed: no more than this is in doubt after a pull, and compared."""

_END = b"\0"
_LIST = "files."


def encode(paths: Iterable[bytes]) -> bytes:
    """The names, each ended by NUL, and one more NUL to show that the list is whole."""
    return b"".join(path + b"\0" for path in paths) + _END


def decode(content: bytes) -> frozenset[bytes] | None:
    """The names in a list, or None where it is not whole: then every file is in doubt."""
    if content == _END:
        return frozenset()
    if not content.endswith(b"\0" + _END):
        return None
    found = frozenset(content[:-2].split(b"\0"))
    return None if b"" in found else found  # clusters that were never written read as zeros


def lists(names: Iterable[str]) -> tuple[str, ...]:
    """The lists among ``names``, the oldest first."""
    numbered = [(int(number), name) for name in names if (number := name.removeprefix(_LIST)).isdecimal()]
    return tuple(name for _, name in sorted(numbered) if name.startswith(_LIST))


def next_list(names: Iterable[str]) -> str:
    """A name that no list has. A new list never replaces the old one: a rename over a file is two steps on exFAT."""
    taken = lists(names)
    return f"{_LIST}{int(taken[-1].rpartition('.')[2]) + 1 if taken else 1}"


def batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    """The files in portions; one that is larger than a portion is a portion of its own."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (size + item.file.size > BATCH_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item.file.size
    if batch:
        yield batch
