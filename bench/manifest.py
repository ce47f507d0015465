"""What the manifest costs: SQLite on the server, and the file on the disk.

    .venv/bin/python -m bench.manifest [--files N] [--folders N] [--folder DIRECTORY] [--level N] [--json]

Makes a manifest of ``--files`` photos in ``--folders`` folders of Immich's shape (``upload/<user>/aa/bb/<uuid>.jpg``), with
SHA-1s and times, and measures each thing that a run does with it. Peak memory is the process's, after each step.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random

from immich_usb_backup.adapters import manifest_file
from immich_usb_backup.adapters.manifest import SqliteManifest, SqliteManifests
from immich_usb_backup.policy.manifest import Change, Known, KnownFolder, ManifestHeader

USER = b"upload/5f0c1d7e-8a3b-4c55-9e0f-2b7a6d1c9e44"


class Measured:
    """The figures, printed as they come."""

    def __init__(self) -> None:
        self.figures: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.note(f"{name}, s", time.perf_counter() - start)
        self.note(f"{name}, peak MB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)

    def note(self, name: str, value: float) -> None:
        self.figures[name] = round(value, 2)
        print(f"{name}: {value:,.2f}", file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the manifest alone")
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folders", type=int, default=65_536)
    parser.add_argument("--folder", type=Path, help="where the files are made (default: the temporary folder)")
    parser.add_argument("--level", type=int, help="another compression level")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.level is not None:
        manifest_file._LEVEL = arguments.level  # noqa: SLF001
    measured = Measured()
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as folder:
        asyncio.run(_measure(Path(folder), arguments.files, arguments.folders, measured))
    if arguments.json:
        print(json.dumps(measured.figures, indent=1))


async def _measure(folder: Path, files: int, folders: int, measured: Measured) -> None:
    manifests = SqliteManifests(folder)
    manifest = await manifests.open("BENCH")
    with measured.step("apply"):
        await manifest.apply(_changes(files, folders))
    with measured.step("commit"):
        await manifest.commit()
    await manifest.close()
    (database,) = (folder / "manifests").glob("*.db")
    measured.note("SQLite, MB", database.stat().st_size / 1e6)
    with measured.step("open"):
        manifest = await manifests.open("BENCH")
    with measured.step("all folders"):
        found = _walk(manifest.folder, lambda there: there.folders)
    with measured.step("all folders by the disk's path"):
        assert _walk(manifest.stored_folder, lambda there: there.folders.values()) == found
    assert found == files, found
    with measured.step("totals"):
        await manifest.totals()
    path = folder / manifest_file.FORMAT
    with measured.step("write"):
        _write(manifest, path)
    measured.note("on the disk, MB", path.stat().st_size / 1e6)
    with measured.step("read"), path.open("rb") as stream:
        manifest.read(stream)
    with measured.step("commit after read"):
        await manifest.commit()
    assert (await manifest.totals())[0] == files
    await _one_percent(manifest, files, folders, measured)
    await manifest.close()


async def _one_percent(manifest: SqliteManifest, files: int, folders: int, measured: Measured) -> None:
    changes = [change for number, change in enumerate(_changes(files, folders)) if number % 100 == 0]
    with measured.step("apply 1 % drops"):
        await manifest.apply(Change(change.path, None) for change in changes)
    with measured.step("commit of them"):
        await manifest.commit()
    with measured.step("apply 1 % puts"):
        await manifest.apply(changes)
    with measured.step("commit of those"):
        await manifest.commit()


def _changes(files: int, folders: int) -> Iterator[Change]:
    random = Random(3)
    each = -(-files // folders)
    for number in range(files):
        place = number // each
        name = b"%s.jpg" % str(uuid.UUID(int=random.getrandbits(128))).encode()
        known = Known(
            name,
            name,
            random.randrange(20_000_000),
            random.randrange(10**18, 1_700_000_000 * 10**9),
            number + 1,
            random.randbytes(20),
            1_760_000_000 + place,
        )
        yield Change(b"%s/%02x/%02x/%s" % (USER, place >> 8, place & 255, name), known)


def _walk(lookup: Callable[[bytes], KnownFolder | None], below: Callable[[KnownFolder], object]) -> int:
    waiting, files = [b""], 0
    while waiting:
        path = waiting.pop()
        there = lookup(path)
        assert there is not None
        files += len(there.files)
        waiting += [path + b"/" + name if path else name for name in sorted(below(there), reverse=True)]  # type: ignore[call-overload]
    return files


def _write(manifest: SqliteManifest, path: Path) -> None:
    header = ManifestHeader(
        generation="g", server_id="s", server_name="bench", run_id="r", written=datetime(2026, 11, 21, tzinfo=UTC)
    )
    with path.open("wb") as sink:
        manifest.write(header, sink)


if __name__ == "__main__":
    main()
