"""What reading a dump costs, held against ``zcat DUMP | grep -c`` on the same file in the same run.

    .venv/bin/python -m bench.dump [--assets N] [--rounds N] [--folder DIRECTORY] [--json]

Makes a dump with ``--assets`` photos of Immich's shape (``/data/upload/<user>/aa/bb/<uuid>.jpg``), and as many rows of a table
that nobody asks for. Each case then runs in a process of its own, the rounds one after the other: the reader alone, the
sorted book that a run makes of it, and that book opened again and read from end to end. Figures are medians.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from immich_usb_backup.adapters.asset_book import SqliteAssetBooks
from immich_usb_backup.adapters.immich_dump import read_dump

USER = "5f0c1d7e-8a3b-4c55-9e0f-2b7a6d1c9e44"
MEDIA_LOCATION = Path("/data")
CASES = ("reader", "book made", "book read")
_HEAD = """--
-- PostgreSQL database dump
--

-- Dumped from database version 14.19
-- Dumped by pg_dump version 14.19

COPY public.asset (id, "deviceAssetId", "ownerId", "deviceId", type, "originalPath", "fileCreatedAt", "fileModifiedAt", \
"isFavorite", duration, "encodedVideoPath", checksum, "livePhotoVideoId", "updatedAt", "createdAt", "originalFileName", \
"sidecarPath", thumbhash, "isOffline", "libraryId", "isExternal", "deletedAt", "localDateTime", "stackId", "duplicateId", \
status, "updateId", visibility) FROM stdin;
"""
_EXIF = 'COPY public.asset_exif ("assetId", make, model, "lensModel", latitude, longitude, description) FROM stdin;\n'
_TAIL = """COPY public.system_metadata (key, value) FROM stdin;
MediaLocation\t{"location": "/data"}
\\.

--
-- PostgreSQL database dump complete
--
"""
_TIME = "2024-05-01 10:00:00.123+00"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="the reader of Immich's dumps alone")
    parser.add_argument("--assets", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the dump is made (default: the temporary folder)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.case is not None:
        print(json.dumps(measure(arguments.folder, arguments.case)))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="bench-") as folder:
        figures = dict(_all_cases(Path(folder), arguments.assets, arguments.rounds))
    if arguments.json:
        print(json.dumps(figures, indent=1))


def _all_cases(folder: Path, assets: int, rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    make_dump(folder / "dump.sql.gz", assets)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(rounds):
        found.setdefault("zcat | grep -c", []).append(_zcat(folder / "dump.sql.gz"))
        for case in CASES:
            found.setdefault(case, []).append(_in_a_process(folder, case))
    for case, measured in found.items():
        medians = {name: statistics.median(each[name] for each in measured) for name in measured[0]}
        figures = {name: round(value, 2) for name, value in medians.items()}
        figures["rows/s"] = round(medians["rows"] / medians["s"])  # of a few rows the rounded seconds are none
        print(f"{case}: " + ", ".join(f"{name} {value:g}" for name, value in figures.items()), file=sys.stderr)
        yield case, figures


def _zcat(dump: Path) -> dict[str, float]:
    start = time.perf_counter()
    with subprocess.Popen(["zcat", dump], stdout=subprocess.PIPE) as first:
        done = subprocess.run(["grep", "-c", "/data/upload/"], stdin=first.stdout, capture_output=True, check=True)
    return {"s": time.perf_counter() - start, "rows": int(done.stdout)}


def _in_a_process(folder: Path, case: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.dump", f"--folder={folder}", f"--case={case}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(folder: Path, case: str) -> dict[str, float]:
    """One case: seconds, rows, and the process's peak memory."""
    dump, state = folder / "dump.sql.gz", folder / "state"
    sha256 = subprocess.run(["sha256sum", dump], capture_output=True, text=True, check=True).stdout.split()[0]
    work: dict[str, Callable[[], int]] = {
        "reader": lambda: _read(dump),
        "book made": lambda: asyncio.run(_make(dump, state, sha256)),
        "book read": lambda: asyncio.run(_look(dump, state, sha256)),
    }
    start = time.perf_counter()
    rows = work[case]()
    seconds = time.perf_counter() - start
    return {"s": seconds, "rows": rows, "peak MB": _peak_megabytes()}


def _peak_megabytes() -> float:
    """Of this process alone: ``ru_maxrss`` begins with what the process had that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000


def _read(dump: Path) -> int:
    counts: list[int] = []
    read_dump(dump, lambda rows: counts.append(len(rows)), beat=lambda: None)
    return sum(counts)


async def _make(dump: Path, state: Path, sha256: str) -> int:
    for old in (state / "assets").glob("*"):
        old.unlink()
    book = await SqliteAssetBooks(state).open(dump, sha256=sha256, media_location=MEDIA_LOCATION)
    await book.close()
    return book.facts.assets


async def _look(dump: Path, state: Path, sha256: str) -> int:
    book = await SqliteAssetBooks(state).open(dump, sha256=sha256, media_location=MEDIA_LOCATION)
    rows = sum(len(assets) for _, assets in book.folders())
    await book.close()
    return rows


def make_dump(path: Path, assets: int) -> None:
    """A dump, packed as Immich packs it."""
    random = Random(3)
    with (
        path.open("wb") as out,
        subprocess.Popen(["gzip", "--rsyncable"], stdin=subprocess.PIPE, stdout=out, text=True) as gzip,
    ):
        assert gzip.stdin is not None
        gzip.stdin.write(_HEAD)
        gzip.stdin.writelines(_row(random) for _ in range(assets))
        gzip.stdin.write("\\.\n\n" + _EXIF)
        gzip.stdin.writelines(
            f"{_uuid(random)}\tApple\tiPhone 12\tback camera 4.2mm f/1.6\t{number / 7919:.5f}\t8.5417\t\n"
            for number in range(assets)
        )
        gzip.stdin.write("\\.\n\n" + _TAIL)


def _row(random: Random) -> str:
    name = _uuid(random)
    path = f"/data/upload/{USER}/{name[:2]}/{name[2:4]}/{name}.jpg"
    return "\t".join(
        (
            *(_uuid(random), f"IMG_{random.randrange(10**6)}.jpg-2481733", USER, "WEB", "IMAGE", path, _TIME, _TIME),
            *("f", "\\N", "", f"\\\\x{random.randbytes(20).hex()}", "\\N", _TIME, _TIME, "IMG_0001.jpg", "\\N"),
            *(f"\\\\x{random.randbytes(25).hex()}", "f", "\\N", "f", "\\N", _TIME, "\\N", "\\N", "active"),
            *(_uuid(random), "timeline\n"),
        )
    )


def _uuid(random: Random) -> str:
    return str(uuid.UUID(int=random.getrandbits(128), version=4))


if __name__ == "__main__":
    main()
