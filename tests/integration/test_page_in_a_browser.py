"""The page on the disk as people see it, in Debian's Chromium: on a phone and on a desk, light and dark, without a script."""

from __future__ import annotations

import base64
import html
import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from immich_usb_backup.model import Outcome, Restorable
from immich_usb_backup.policy.page import page
from immich_usb_backup.policy.page_facts import PageFacts
from tests.support.needs import need_chromium
from tests.support.pages import VERDICT, everywhere, facts

DEADLINE = 120.0
DARK, LIGHT = 0, 1
WIDTHS = (320, 390, 768, 1280)
LONG = "W" * 300
PAGES = {
    "whole": facts(),
    "not whole": everywhere(LONG, outcome=Outcome.PARTIAL),
    "markup": everywhere("<b onclick='x'>&\"" * 9),
    "no database": facts(dump="", dump_time=None, cluster=None, verdict=None, proofs=(), runs=facts().runs[:1]),
    "not restorable": facts(verdict=replace(VERDICT, restorable=Restorable.NO), cluster=None, extra=("pictures",)),
}
_MEASURE = """\
<!DOCTYPE html><pre id="out"></pre>{frames}<script>
const channel = value => (value /= 255) <= .03928 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4;
const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
function behind(element, view) {{
  for (; element; element = element.parentElement) {{
    const colour = numbers(view.getComputedStyle(element).backgroundColor);
    if (colour.length === 3) return colour;
  }}
}}
function contrast(element, view) {{
  const [a, b] = [light(numbers(view.getComputedStyle(element).color)), light(behind(element, view))];
  return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
}}
function looked(frame) {{
  const view = frame.contentWindow, root = view.document.documentElement;
  for (const element of root.querySelectorAll("details")) element.open = true;
  const texts = [...root.querySelectorAll("body *")].filter(element =>
    !element.classList.contains("aside") && [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  const wide = [...root.querySelectorAll("body *")].filter(element =>
    !element.classList.contains("aside") && element.getBoundingClientRect().right > root.clientWidth + .5);
  return {{
    overflow: root.scrollWidth - root.clientWidth, wide: wide.map(element => element.outerHTML.slice(0, 80)), texts: texts.length,
    pale: texts.filter(element => contrast(element, view) < 4.5).map(element => element.outerHTML.slice(0, 80)),
    height: root.scrollHeight, background: view.getComputedStyle(root.querySelector("body")).backgroundColor,
  }};
}}
addEventListener("load", () => {{
  const found = Object.fromEntries([...document.querySelectorAll("iframe")].map(frame => [frame.title, looked(frame)]));
  document.getElementById("out").textContent = JSON.stringify(found);
}});
</script>"""
_PIXELS = """\
<!DOCTYPE html><pre id="out"></pre>{images}<script>
function looked(image) {{
  const canvas = document.createElement("canvas"), pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  pen.drawImage(image, 0, 0);
  const pixels = new Uint32Array(pen.getImageData(0, 0, canvas.width, canvas.height).data.buffer), counts = new Map();
  let sum = 0;
  for (const pixel of pixels) {{
    counts.set(pixel, (counts.get(pixel) || 0) + 1);
    sum += (pixel & 255) + (pixel >> 8 & 255) + (pixel >> 16 & 255);
  }}
  return {{
    width: canvas.width, height: canvas.height, light: sum / pixels.length / 3, colours: counts.size,
    paper: Math.max(...counts.values()) / pixels.length,
  }};
}}
addEventListener("load", () => {{
  const found = Object.fromEntries([...document.images].map(image => [image.title, looked(image)]));
  document.getElementById("out").textContent = JSON.stringify(found);
}});
</script>"""


@pytest.fixture
def chromium(tmp_path: Path) -> Chromium:
    """A browser with a profile of its own."""
    need_chromium()
    return Chromium(tmp_path)


class Chromium:
    """Headless, without a network of its own doing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _run(self, *options: str, scheme: int, content: str) -> str:
        file = self._folder / "shown.html"
        file.write_text(content)
        command = (
            *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *("--disable-component-update", "--disable-sync", "--hide-scrollbars", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={self._folder / 'profile'}", f"--blink-settings=preferredColorScheme={scheme}"),
        )
        done = subprocess.run([*command, *options, file.as_uri()], capture_output=True, timeout=DEADLINE, check=True)
        return done.stdout.decode()

    def dom(self, content: str, *, scheme: int = LIGHT) -> str:
        """The document after it was loaded."""
        return self._run("--dump-dom", scheme=scheme, content=content)

    def asked(self, content: str, *, scheme: int = LIGHT) -> dict[str, Any]:
        """What a script in it found out."""
        match = re.search(r'<pre id="out">(.+?)</pre>', self.dom(content, scheme=scheme), re.DOTALL)
        assert match, "the script did not come to its end"
        found: dict[str, Any] = json.loads(html.unescape(match[1]))
        return found

    def picture(self, text: str, *, width: int, height: int, scheme: int) -> bytes:
        """A screenshot. The page is in a frame: a window cannot be as narrow as a phone."""
        goal = self._folder / "shown.png"
        frame = _frame("shown", text, width, height)
        self._run(
            f"--window-size={width},{height}",
            f"--screenshot={goal}",
            scheme=scheme,
            content=f'<!DOCTYPE html><body style="margin:0;overflow:hidden">{frame}',
        )
        return goal.read_bytes()


def _frame(title: str, text: str, width: int, height: int) -> str:
    size = f'width="{width}" height="{height}" style="border:0;display:block"'
    return f'<iframe title="{title}" {size} srcdoc="{html.escape(text)}"></iframe>'


def _looks(pages: Mapping[str, PageFacts]) -> str:
    frames = [_frame(f"{name} {width}", page(one), width, 900) for name, one in pages.items() for width in WIDTHS]
    return _MEASURE.format(frames="".join(frames))


@pytest.mark.parametrize("scheme", [LIGHT, DARK])
def test_everything_fits_and_can_be_read_on_any_screen(chromium: Chromium, scheme: int) -> None:
    found = chromium.asked(_looks(PAGES), scheme=scheme)
    assert len(found) == len(PAGES) * len(WIDTHS)
    for where, looked in found.items():
        assert (looked["overflow"], looked["wide"], looked["pale"]) == (0, [], []), where
        assert looked["texts"] > 40, where
        assert looked["height"] > 1500, where


def test_what_is_seen_is_the_page_in_light_and_in_dark(chromium: Chromium) -> None:
    images = ""
    for width in (390, 1280):
        for name, scheme in (("light", LIGHT), ("dark", DARK)):
            picture = chromium.picture(page(facts()), width=width, height=1000, scheme=scheme)
            data = base64.b64encode(picture).decode()
            images += f'<img title="{name} {width}" src="data:image/png;base64,{data}">'
    found = chromium.asked(_PIXELS.format(images=images))
    for width in (390, 1280):
        light, dark = found[f"light {width}"], found[f"dark {width}"]
        assert {(one["width"], one["height"]) for one in (light, dark)} == {(width, 1000)}
        assert light["light"] > 200
        assert dark["light"] < 70
        assert all(one["colours"] > 100 and 0.4 < one["paper"] < 0.97 for one in (light, dark))


def test_a_script_that_got_into_the_page_would_not_run(chromium: Chromium) -> None:
    text = page(facts())
    script = "<script>document.title = 'run'</script><img src='x' onerror=\"document.title = 'run'\">"
    assert "<title>run" not in chromium.dom(text.replace("</main>", f"{script}</main>"))
    harmless = re.sub(r"<meta http-equiv[^>]*>", "", text)
    assert "<title>run" in chromium.dom(harmless.replace("</main>", f"{script}</main>"))


def test_a_browser_finds_nothing_to_mend(chromium: Chromium) -> None:
    """What it has made of the page has the same elements in the same order."""
    for name in ("whole", "markup"):
        text = page(PAGES[name])
        elements = re.compile(r"<([a-z]\w*)")
        made = [element for element in elements.findall(chromium.dom(text)) if element != "tbody"]
        assert made == elements.findall(text)
