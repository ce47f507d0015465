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
    return frozenset(content[:-2].split(b"\0"))


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
