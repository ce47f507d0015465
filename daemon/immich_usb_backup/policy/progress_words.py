"""A run that goes on, as a terminal shows it: a few lines that change in place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from immich_usb_backup.messages import STAGE_WORDS, started_line
from immich_usb_backup.model import Stage
from immich_usb_backup.policy.cells import Line, Part, Tone, cells, cut, cut_path, line, wrapped
from immich_usb_backup.policy.text import duration, harmless, size
from immich_usb_backup.policy.views import Going

_BAR_AT_MOST, _BAR_AT_LEAST = 40, 10
_SAMPLE_SECONDS, _RATE_SECONDS = 20.0, 3.0


def live_lines(now: Going, columns: int, *, current: str = "") -> Iterator[Line]:
    """What is done, to which disk, how far it is, and the file that is just copied: each line has less than ``columns``
    cells, so that none is broken by the terminal."""
    headline = harmless(now.headline) or started_line(now.disk)
    yield from wrapped(headline, columns, Tone.STRONG)
    yield line(cut(_stage_words(now), columns))
    details = _details(now)
    if now.percent is None:
        yield from wrapped(", ".join(details), columns) if details else ()
    else:
        yield from _bar_lines(now.percent, details, columns)
    if current:
        yield line(cut_path(harmless(current), columns), Tone.DIM)


def plain_line(now: Going) -> str:
    """The same in one line, for where nothing changes in place."""
    return harmless(now.line) or _stage_words(now)


def _stage_words(now: Going) -> str:
    try:
        return STAGE_WORDS[Stage(now.stage)]
    except ValueError:  # a service that is newer
        return harmless(now.stage) or "beginning"


def _bar_lines(percent: int, details: Sequence[str], columns: int) -> Iterator[Line]:
    """The bar and the figures in one line where there is room for both."""
    beside = f" {percent} %" + "".join(f", {detail}" for detail in details)
    room = columns - cells(beside) - 2
    if room >= _BAR_AT_LEAST:
        yield (*_bar(percent, min(room, _BAR_AT_MOST)), Part(beside))
        return
    yield (*_bar(percent, max(1, min(columns - 8, _BAR_AT_MOST))), Part(f" {percent} %"))
    yield from wrapped(", ".join(details), columns) if details else ()


def _bar(percent: int, room: int) -> Line:
    full = room * percent // 100
    return (Part("["), Part("#" * full, Tone.GOOD), Part("-" * (room - full), Tone.DIM), Part("]"))


def _details(now: Going) -> list[str]:
    """How much is done, how fast, and how long it takes."""
    parts = []
    if now.stage == Stage.FLUSH and now.total:
        parts.append(f"{size(max(0, now.total - now.done))} left to write")
    elif now.total:
        parts.append(f"{size(now.done)} of {size(now.total)}")
    elif now.done:
        parts.append(size(now.done))
    if now.rate is not None:
        parts.append(f"{size(now.rate)}/s")
    if now.seconds_left is not None:
        parts.append(f"{duration(now.seconds_left)} left")
    return parts


@dataclass(frozen=True, slots=True)
class Speed:
    """What was done in the last seconds of a step, for a service that does not say how fast it is: (seconds, bytes)."""

    stage: str = ""
    samples: tuple[tuple[float, int], ...] = ()

    def and_then(self, now: Going, seconds: float) -> Speed:
        """With one more sample; a new step begins anew."""
        kept = tuple(sample for sample in self.samples if sample[0] >= seconds - _SAMPLE_SECONDS)
        if now.stage != self.stage or (kept and now.done < kept[-1][1]):
            kept = ()
        return Speed(now.stage, (*kept, (seconds, now.done)))

    def of(self, now: Going) -> Going:
        """The run with its rate and the time that is left, where the service did not say them."""
        if now.rate is not None or not now.total or len(self.samples) < 2:
            return now
        (began, first), (ended, last) = self.samples[0], self.samples[-1]
        if ended - began < _RATE_SECONDS or last <= first:
            return now
        rate = (last - first) / (ended - began)
        return replace(now, rate=rate, seconds_left=max(0, now.total - now.done) / rate)
