"""Commands on the host, and loop devices: an image as a device for as long as it is needed. Needs root; everything blocks."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

COMMAND_SECONDS = 120.0
LOOP_SECONDS = 10.0


class ImageError(Exception):
    """An image could not be made, mounted or read."""


@contextmanager
def telling_of_disks() -> Iterator[None]:
    """What goes wrong says which loop devices and mounts there were."""
    try:
        yield
    except (ImageError, OSError) as error:
        loops = subprocess.run(["losetup", "-a"], capture_output=True, text=True, errors="replace", check=False)
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if "fuse" in line or "loop" in line]
        error.add_note("\n".join(["loop devices:", loops.stdout + loops.stderr, "mounts:", *mounts]))
        raise


@contextmanager
def loop(image: Path, offset: int, *, writable: bool) -> Iterator[str]:
    """What lies in an image from an offset (bytes) on, as a device."""
    device = _attach(image, offset, writable=writable)
    try:
        yield device
    finally:
        run(["losetup", "-d", device])
        _wait_detached(device, image)


def _attach(image: Path, offset: int, *, writable: bool) -> str:
    """Attach a loop device; `losetup -f` races with its like, so try until the deadline."""
    command = ["losetup", "-f", "--show", *([] if writable else ["-r"]), "-o", str(offset), str(image)]
    return run_until(command, LOOP_SECONDS).strip()


def run_until(command: Sequence[str | Path], seconds: float) -> str:
    """What a command says when it succeeds at last; its last failure is the one that counts."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return run(command)
        except ImageError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _wait_detached(device: str, image: Path) -> None:
    """A busy loop device detaches later; the image is whole only then."""
    deadline = time.monotonic() + LOOP_SECONDS
    while _backing_file(device) == str(image.resolve()):
        if time.monotonic() > deadline:
            raise ImageError(f"{device} still holds {image}")
        time.sleep(0.05)


def _backing_file(device: str) -> str | None:
    """What lies behind a loop device; None when nothing does, also when that is so from one moment to the next."""
    try:
        return (Path("/sys/block") / Path(device).name / "loop/backing_file").read_text().strip()
    except OSError:
        return None


def run(command: Sequence[str | Path], *, stdin: str = "", seconds: float = COMMAND_SECONDS) -> str:
    """What a command says. Raises ``ImageError``, with its last words."""
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired as late:
        raise ImageError(f"{command[0]} took longer than {seconds:.0f} s") from late
    if done.returncode:
        said = (done.stdout + done.stderr)[-3000:]
        raise ImageError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{said}")
    return done.stdout
