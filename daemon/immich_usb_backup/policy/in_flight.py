"""Which files were being copied when a disk was pulled.

exFAT is not journaled: after a pull a file may stand there with its size and time, and without its content. So before
files are copied, their names are on the medium; they leave when everything has been flushed. A run that finds names
copies those files again, whatever they look like.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from immich_usb_backup.policy.mirror import FileFact

BATCH_BYTES = 4_000_000_000
BATCH_FILES = 10_000
"""Between two batches everything is flushed: no more than this is in doubt after a pull, and copied again."""

_END = b"\0"


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


def lists_of(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    """The lists of one library folder among ``names``, the oldest first."""
    numbered = [(int(number), name) for name in names if (number := name.removeprefix(folder + ".")).isdecimal()]
    return tuple(name for _, name in sorted(numbered))


def next_list(folder: str, names: Iterable[str]) -> str:
    """A name that no list has. A new list never replaces the old one: a rename over a file is two steps on exFAT."""
    taken = lists_of(folder, names)
    return f"{folder}.{int(taken[-1].rpartition('.')[2]) + 1 if taken else 1}"


def batches(copy: Mapping[bytes, FileFact]) -> Iterator[dict[bytes, FileFact]]:
    """The files in portions; one that is larger than a portion is a portion of its own."""
    batch: dict[bytes, FileFact] = {}
    size = 0
    for path, fact in copy.items():
        if batch and (size + fact.size > BATCH_BYTES or len(batch) >= BATCH_FILES):
            yield batch
            batch, size = {}, 0
        batch[path] = fact
        size += fact.size
    if batch:
        yield batch
