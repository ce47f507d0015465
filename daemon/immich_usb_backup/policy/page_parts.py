"""The parts of the page on the disk, but for the way back. Every function gives HTML that is escaped already."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple
from urllib.parse import quote

from immich_usb_backup.model import DiskVerdict, Finding, Outcome, Restorable, Severity
from immich_usb_backup.policy.manifest import MANIFEST
from immich_usb_backup.policy.page_facts import PageFacts, ProvenFile
from immich_usb_backup.policy.text import counted, harmless, size
from immich_usb_backup.policy.verdict_words import verdict_lines, verdict_sentence

_FINDINGS_SHOWN = 6
_REASONS_SHOWN = 6
_ITEMS_SHOWN = 3
_EXCEPTIONS_SHOWN = 20
_EXTRAS_SHOWN = 6
_SUMS_SHOWN = 15
_SENTENCE_BYTES = 600
_NAME_BYTES = 250

_MAIL = re.compile(r"[^\s@<>'\"(),;:/]+@[^\s@<>'\"(),;:/]+")
_PLACE = re.compile(r"(?<![^\s'\"(,;:=])/(?:[^\s'\"(),;:/]+/)*(?=[^\s'\"(),;:/])")

_OUTCOMES = {
    Outcome.OK: ("complete", "✓"),
    Outcome.PARTIAL: ("not everything", "!"),
    Outcome.FAILED: ("failed", "×"),
    Outcome.INTERRUPTED: ("interrupted", "–"),
}
_FOLDERS = {
    "upload": "Photos and videos as they were uploaded, by the user’s and the file’s number",
    "library": "Photos and videos that Immich has sorted into folders",
    "profile": "Users’ profile pictures",
    "extra": "Further folders of the server",
}


class VerdictWords(NamedTuple):
    """What the disk is worth, in words: ``tone`` is ``good``, ``warn`` or ``bad``, ``sign`` its mark."""

    tone: str
    sign: str
    headline: str


def esc(text: str, *, room: int = _SENTENCE_BYTES) -> str:
    """Foreign text for HTML: without control characters, with its markup as text, cut to ``room`` bytes."""
    whole = html.escape(harmless(text))
    return whole if len(whole.encode()) <= room else _cut(text, room)


def _cut(text: str, room: int) -> str:
    pieces = [html.escape(harmless(character)) for character in text[:room]]
    ends = accumulate(len(piece.encode()) for piece in pieces)
    return "".join(piece for piece, end in zip(pieces, ends, strict=True) if end <= room) + "…"


def name(text: str) -> str:
    """The same for a name."""
    return esc(text, room=_NAME_BYTES)


def discreet(text: str, private: Iterable[str]) -> str:
    """A sentence without what only the server's owner should read: mail addresses, and where things lie on the server."""
    for place in sorted((place for place in private if len(place) > 1), key=len, reverse=True):
        text = text.replace(place, "…")
    return _MAIL.sub("…", _PLACE.sub("…/", text))


def day(when: datetime) -> str:
    """``3 March 2026``, in the zone of the machine that writes the page."""
    local = when.astimezone()
    return f'<time datetime="{local.isoformat(timespec="seconds")}">{local.day} {local:%B %Y}</time>'


def hour(when: datetime) -> str:
    """``3 March 2026, 14:05``, in the same zone."""
    local = when.astimezone()
    return f'<time datetime="{local.isoformat(timespec="seconds")}">{local.day} {local:%B %Y, %H:%M}</time>'


def verdict_words(facts: PageFacts) -> VerdictWords:
    """The one thing that a reader wants to know."""
    verdict = facts.verdict
    if not facts.dump:
        return VerdictWords("bad", "!", "The photos are here, the database is not")
    if verdict is None or _nothing_counted(verdict):
        return VerdictWords("warn", "?", "Not compared with Immich’s database")
    if verdict.restorable is Restorable.YES:
        return VerdictWords("good", "✓", "Everything can be restored from this disk")
    if verdict.restorable is Restorable.EXCEPT:
        lost = counted(verdict.exception_count, "file") if verdict.exception_count else "some files"
        return VerdictWords("warn", "!", f"Everything but {lost} can be restored from this disk")
    return VerdictWords("bad", "×", "This disk does not bring everything back")


def _nothing_counted(verdict: DiskVerdict) -> bool:
    """Whether the dump's list of photos could not be read: then all counts are 0."""
    return verdict.restorable is not Restorable.YES and not (verdict.assets or verdict.external)


def header(facts: PageFacts, words: VerdictWords) -> str:
    """Whose backup it is, and the verdict."""
    check = '<li><a href="#checksums">Check the files</a></li>' if facts.proofs else ""
    return f"""\
<header>
<p class="above">Backup of the Immich server <b>{name(facts.server)}</b> on the disk <b>{name(facts.disk)}</b></p>
<h1 class="verdict"><span class="sign" aria-hidden="true">{words.sign}</span> <span>{esc(words.headline)}</span></h1>
{_lead(facts)}
<p class="soft">Immich keeps photos and videos on a server at home. This disk holds copies of them, as plain files that every
computer can open, and what is needed to set the server up again. Nothing on it is encrypted: keep it as you would keep the
photos and your passwords.</p>
<ul class="ways"><li><a href="#photos">Get single photos back</a></li>
<li><a href="#restore">Restore everything</a></li>{check}</ul>
</header>"""


def _lead(facts: PageFacts) -> str:
    verdict = facts.verdict
    if not facts.dump:
        return _paragraph(
            "No good database dump was found. The photos can be copied; albums, people, users are not here."
        )
    if verdict is None:
        return _paragraph("The files were copied as the server had them. Whether they are all is not known.")
    return _paragraph(verdict_sentence(verdict, facts.disk))


def _paragraph(text: str) -> str:
    return f'<p class="lead">{esc(text)}</p>'


def at_a_glance(facts: PageFacts) -> str:
    """The facts that change from run to run."""
    copied = "nothing new had to be copied"
    if facts.copied_files:
        copied = f"{counted(facts.copied_files, 'file')} copied, {size(facts.copied_bytes)}"
    room = (
        f"{size(facts.free)} free of {size(facts.size)}" if facts.free is not None else f"a disk of {size(facts.size)}"
    )
    rows = [
        ("Last backup", hour(facts.written), esc(f"{_OUTCOMES[facts.outcome][0]}; {copied}")),
        ("On the disk", f"{counted(facts.files, 'file')}, {size(facts.bytes)}", esc(room)),
        ("Database", *_database_words(facts)),
        ("Read back", *_read_back_words(facts.verdict)),
    ]
    cells = "\n".join(f"<div><dt>{what}</dt><dd>{value} <small>{more}</small></dd></div>" for what, value, more in rows)
    return f'<section class="first" aria-label="At a glance"><dl class="glance">\n{cells}\n</dl></section>'


def _database_words(facts: PageFacts) -> tuple[str, str]:
    if not facts.dump:
        return "no good dump", "the photos alone do not bring Immich back"
    when = hour(facts.dump_time) if facts.dump_time else "a dump"
    version = facts.verdict.immich if facts.verdict else ""
    return when, name(f"Immich {version}" if version else "as Immich dumped it")


def _read_back_words(verdict: DiskVerdict | None) -> tuple[str, str]:
    if verdict is None or not verdict.files_proven:
        return "not yet", "files are read back in turn, at each backup"
    if verdict.files_proven < verdict.files:
        return f"{verdict.files_proven:,} of {verdict.files:,} files", "the others have their turn at the next backups"
    since = f"since {day(verdict.oldest_proof)}" if verdict.oldest_proof else "and found as they were written"
    return "every file", since


def history(facts: PageFacts) -> str:
    """A cell for each of the last runs, told apart by its sign as well as by its colour."""
    cells = "".join(
        f'<li class="{run.outcome.value}" title="{_plain_day(run.ended)}: {_OUTCOMES[run.outcome][0]}">'
        f'<span aria-hidden="true">{_OUTCOMES[run.outcome][1]}</span>'
        f'<span class="aside">{_plain_day(run.ended)}: {_OUTCOMES[run.outcome][0]}</span></li>\n'
        for run in facts.runs
    )
    met = {run.outcome for run in facts.runs}
    legend = " · ".join(f"{sign} {words}" for outcome, (words, sign) in _OUTCOMES.items() if outcome in met)
    span = (
        f"{day(facts.runs[0].ended)} to {day(facts.runs[-1].ended)}, the newest last. " if len(facts.runs) > 1 else ""
    )
    title = "The first backup" if len(facts.runs) == 1 else f"The last {len(facts.runs)} backups"
    return f"""\
<section aria-labelledby="history"><h2 id="history">{title}</h2>
<ol class="runs">
{cells}</ol>
<p class="soft">{span}{legend}</p></section>"""


def _plain_day(when: datetime) -> str:
    local = when.astimezone()
    return f"{local.day} {local:%B %Y, %H:%M}"


def shortcomings(facts: PageFacts) -> str:
    """What a restore would miss, and what the last run had to complain about; empty where there is nothing."""
    verdict = facts.verdict
    serious = [finding for finding in facts.findings if finding.severity is not Severity.NOTE]
    lines = [*verdict.reasons[:_REASONS_SHOWN], *verdict_lines(verdict, facts.disk)[2:]] if verdict else []
    found = [_bullets([discreet(line, facts.private) for line in lines]), _exceptions(verdict) if verdict else ""]
    found += [_finding(finding, facts.private) for finding in serious[:_FINDINGS_SHOWN]]
    text = "\n".join(filter(None, found))
    if not text:
        return ""
    title = "What is not right" if serious or (verdict and verdict.reasons) else "Good to know"
    return f'<section aria-labelledby="missing"><h2 id="missing">{title}</h2>\n{text}</section>'


def _bullets(lines: Iterable[str]) -> str:
    text = "".join(f"<li>{esc(line[:1].upper() + line[1:])}</li>\n" for line in lines)
    return f"<ul>\n{text}</ul>" if text else ""


def _exceptions(verdict: DiskVerdict) -> str:
    shown = [f"<li>{name(file_words(item))}</li>\n" for item in verdict.exceptions[:_EXCEPTIONS_SHOWN]]
    if not shown:
        return ""
    count = max(verdict.exception_count, len(verdict.exceptions))
    more = f'<p class="soft">and {count - len(shown):,} more</p>\n' if count > len(shown) else ""
    title = f"{counted(count, 'file')} that would not come back"
    return f'<details><summary>{title}</summary>\n<ul class="names">\n{"".join(shown)}</ul>{more}</details>'


def _finding(finding: Finding, private: Iterable[str]) -> str:
    tone = "warn" if finding.severity is Severity.PARTIAL else "bad"
    items = "".join(f"<li>{name(file_words(item))}</li>\n" for item in finding.items[:_ITEMS_SHOWN])
    left = finding.count - min(len(finding.items), _ITEMS_SHOWN)
    more = f'<p class="soft">and {left:,} more</p>' if items and left > 0 else ""
    listed = f'<ul class="names">\n{items}</ul>{more}' if items else ""
    return f'<div class="note {tone}"><p>{esc(discreet(finding.message, private))}</p>{listed}</div>'


def file_words(item: str) -> str:
    """A file's name from a list. Of a path on the server only what is below its folder is told."""
    path, colon, reason = item.partition(": ")
    told = f"…/{path.rpartition('/')[2]}" if path.startswith("/") else path
    return f"{told}{colon}{discreet(reason, ())}"


def link(path: str) -> str:
    """A file or folder beside the page, as a link to it."""
    return f'<a href="{esc(quote(path, errors="replace"))}">{esc(path)}</a>'


def contents(facts: PageFacts) -> str:
    """Which folder holds what."""
    rows = [(link(f"{folder}/"), _folder_words(folder, facts)) for folder in _FOLDERS if folder in facts.folders]
    if facts.dump:
        rows.append((link("database/"), "Immich’s database: users, albums, people, places, and all settings"))
    if any(proof.path.startswith("config/") for proof in facts.proofs):
        rows.append((link("config/"), "The server’s configuration files, zipped"))
    rows.append(("deleted/", "What was deleted in Immich, by the day, for some weeks; there only when something was"))
    rows.append((link(MANIFEST), "The list of it all, with the names and times that the files had on the server"))
    table = "\n".join(f'<tr><th scope="row">{place}</th><td>{esc(words)}</td></tr>' for place, words in rows)
    return f"""\
<section aria-labelledby="contents"><h2 id="contents">What is on the disk</h2>
<table class="what">
{table}
</table>
<p class="soft">What Immich makes again by itself (thumbnails, converted videos) is not here.</p></section>"""


def _folder_words(folder: str, facts: PageFacts) -> str:
    if folder != "extra" or not facts.extra:
        return _FOLDERS[folder]
    more = ", …" if len(facts.extra) > _EXTRAS_SHOWN else ""
    return f"{_FOLDERS[folder]}: {', '.join(facts.extra[:_EXTRAS_SHOWN])}{more}"


def checksums(facts: PageFacts) -> str:
    """The SHA-256 of the dumps and zips, and how to compare it; empty where there are none."""
    if not facts.proofs:
        return ""
    dumps = [proof for proof in facts.proofs if proof.path.startswith("database/")]
    others = [proof for proof in facts.proofs if not proof.path.startswith("database/")]
    first = [*dumps[:1], *others[:1]]
    rest = [*dumps[1:_SUMS_SHOWN], *others[1:_SUMS_SHOWN]]
    older = f"<details><summary>{counted(len(rest), 'older file')}</summary>\n{_sums(rest)}</details>" if rest else ""
    return f"""\
<section aria-labelledby="checksums"><h2 id="checksums">Checksums</h2>
<p>These files were read back from the disk after they had been written. Each has a SHA-256, which you can compare:</p>
{_sums(first)}
{older}
<pre><code>sha256sum FILE                      (Linux)
shasum -a 256 FILE                  (macOS)
certutil -hashfile FILE SHA256      (Windows)</code></pre>
<p class="soft">Photos and videos: {link(MANIFEST)} has each one’s SHA-1 that is known, and when the file was last read back from the disk and
found to have it.</p></section>"""


def _sums(proofs: Iterable[ProvenFile]) -> str:
    lines = (
        f"<li>{link(proof.path)} {f'({size(proof.size)})' if proof.size else ''}"
        f'<code class="sum">{esc(proof.sha256)}</code></li>\n'
        for proof in proofs
    )
    return f'<ul class="names">\n{"".join(lines)}</ul>'


def footer(facts: PageFacts) -> str:
    """When this was true."""
    return f"""\
<footer><p class="soft">Written by immich-usb-backup at the end of the backup of {hour(facts.written)}, in the server’s time, before the disk
was unmounted. If <code>state.json</code> beside it says <code>"writing": true</code>, a later backup was not finished: this page is older than what
lies here, and the next backup completes it. Without a browser: {link("readme.txt")}.</p></footer>"""
