"""The page on the disk that any browser opens: what the disk holds, what it is worth, and the way back.

Values in, text out. Everything that comes from a disk, a dump or a configuration is foreign text: it is made harmless and
escaped where it is put in. The page is well-formed XML as well as HTML, so that a strict parser can hold it to that.
"""

from __future__ import annotations

from collections.abc import Iterable

from immich_usb_backup.model import RunReport
from immich_usb_backup.policy import page_parts as parts
from immich_usb_backup.policy import page_parts_restore as restore
from immich_usb_backup.policy.page_facts import PageFacts, PastRun
from immich_usb_backup.policy.page_parts_style import STYLE

PAGE = "OPEN-ME.html"
"""Its name on the disk, in the backup folder. Ours to overwrite."""

RUNS_SHOWN = 30

_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta name="color-scheme" content="light dark" />
<meta name="referrer" content="no-referrer" />
<title>{title}</title>
<style>
{style}</style>
</head>
<body class="{tone}">
{body}
</body>
</html>
"""


def page(facts: PageFacts) -> str:
    """The whole page. Less than 60 KB, whatever the names are."""
    words = parts.verdict_words(facts)
    sections = (
        parts.header(facts, words),
        "<main>",
        parts.at_a_glance(facts),
        parts.history(facts),
        parts.shortcomings(facts),
        parts.contents(facts),
        restore.section(facts),
        parts.checksums(facts),
        "</main>",
        parts.footer(facts),
    )
    title = f"{parts.name(facts.disk)}: {parts.esc(words.headline)}"
    return _HTML.format(title=title, style=STYLE, tone=words.tone, body="\n".join(filter(None, sections)))


def past_runs(reports: Iterable[RunReport], *, uuid: str, this: PastRun) -> tuple[PastRun, ...]:
    """The last runs of one disk, oldest first, and then the one that writes the page. ``reports`` are newest first."""
    earlier = [PastRun(report.ended, report.outcome) for report in reports if report.disk.uuid == uuid]
    return (*reversed(earlier[: RUNS_SHOWN - 1]), this)
