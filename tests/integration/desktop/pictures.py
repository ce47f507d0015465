"""A virtual screen with a real notification daemon on it, and pictures of what a person would see there."""

from __future__ import annotations

import contextlib
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import host

WIDTH, HEIGHT = 640, 360
BAR_WIDTH = 300
BAR = (0x22, 0x88, 0xFF)
BACKGROUNDS = {"low": (0x20, 0x30, 0x40), "normal": (0x20, 0x40, 0x20), "critical": (0x60, 0x10, 0x10)}
_FRAME = (0xC0, 0xC0, 0xC0)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


def dunst_settings() -> str:
    """Its own look, with colours by which a test knows what was drawn."""
    levels = "".join(
        f'[urgency_{name}]\nbackground = "{_hex(colour)}"\nforeground = "#ffffff"\n'
        f'highlight = "{_hex(BAR)}"\nframe_color = "{_hex(_FRAME)}"\ntimeout = 0\n'
        for name, colour in BACKGROUNDS.items()
    )
    general = (
        "[global]\nwidth = (300, 600)\nheight = 320\noffset = 20x20\norigin = top-left\nfont = DejaVu Sans 11\n"
        'markup = full\nformat = "<b>%s</b>\\n%b"\nshow_indicators = yes\nprogress_bar = true\n'
        f"progress_bar_min_width = {BAR_WIDTH}\nprogress_bar_max_width = {BAR_WIDTH}\nprogress_bar_frame_width = 0\n"
        "progress_bar_corner_radius = 0\ncorner_radius = 0\nword_wrap = yes\nignore_newline = no\nidle_threshold = 0\n"
        "enable_recursive_icon_lookup = true\nicon_theme = Adwaita\nicon_position = left\nmin_icon_size = 48\n"
    )
    return general + levels


@dataclass(frozen=True)
class Picture:
    """The pixels of a screen."""

    width: int
    height: int
    rows: tuple[bytes, ...]
    """Each three bytes a pixel: red, green, blue."""

    def count(self, colour: tuple[int, int, int]) -> int:
        """How many pixels have exactly this colour."""
        wanted = bytes(colour)
        return sum(row[at : at + 3] == wanted for row in self.rows for at in range(0, len(row), 3))

    def longest(self, colour: tuple[int, int, int]) -> int:
        """The longest line of this colour, in pixels."""
        wanted, best = bytes(colour), 0
        for row in self.rows:
            length = 0
            for at in range(0, len(row), 3):
                length = length + 1 if row[at : at + 3] == wanted else 0
                best = max(best, length)
        return best

    def save(self, path: Path) -> None:
        """As PNG, for a person to look at."""
        raw = zlib.compress(b"".join(b"\0" + row for row in self.rows))
        head = struct.pack(">IIBBBBB", self.width, self.height, 8, 2, 0, 0, 0)
        parts = [_chunk(b"IHDR", head), _chunk(b"IDAT", raw), _chunk(b"IEND", b"")]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@dataclass(frozen=True)
class VirtualScreen:
    """An X server without a screen: its picture lies in a file."""

    display: str
    file: Path

    def picture(self) -> Picture:
        """What is on it now."""
        with open(self.file, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            data = bytes(content)
        header = struct.unpack(">25I", data[:100])
        start, width, height, line = header[0] + 12 * header[19], header[4], header[5], header[12]
        rows = (data[start + line * y : start + line * y + 4 * width] for y in range(height))
        return Picture(width, height, tuple(_rgb(row) for row in rows))


def _rgb(row: bytes) -> bytes:
    """From blue, green, red and a byte that means nothing."""
    pixels = bytearray(len(row) // 4 * 3)
    pixels[0::3], pixels[1::3], pixels[2::3] = row[2::4], row[1::4], row[0::4]
    return bytes(pixels)


@contextlib.contextmanager
def virtual_screen() -> Iterator[VirtualScreen]:
    """Xvfb, on a display that nobody else has."""
    display = f":{1000 + os.getpid() % 30000}"
    with host.temporary_folder() as folder:
        screen = VirtualScreen(display, folder / "Xvfb_screen0")
        socket = Path(f"/tmp/.X11-unix/X{display[1:]}")
        size = f"{WIDTH}x{HEIGHT}x24"
        command = ["Xvfb", display, "-screen", "0", size, "-fbdir", str(folder), "-nolisten", "tcp", "-noreset"]
        with host.daemon(command, lambda: socket.exists() and screen.file.exists(), dict(os.environ)):
            yield screen


@contextlib.contextmanager
def dunst(screen: VirtualScreen, bus: host.Bus) -> Iterator[None]:
    """The notification daemon of many window managers."""
    with host.temporary_folder() as folder:
        settings = folder / "dunstrc"
        settings.write_text(dunst_settings())
        env = {**bus.env, "DISPLAY": screen.display, "HOME": str(folder)}
        env.pop("WAYLAND_DISPLAY", None)
        name = "org.freedesktop.Notifications"
        with host.daemon(["dunst", "-conf", str(settings)], lambda: bus.has_owner(name), env):
            yield
