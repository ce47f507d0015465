"""The page on the disk: true, escaped, without a secret, readable without colour, and its commands are those that work."""

from __future__ import annotations

import argparse
import html
import re
import shlex
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.pages import DUMP, NOW, VERDICT, everywhere, facts
from tests.support.telling import HOSTILE_NAMES, make_report

from immich_usb_backup.cli import restore
from immich_usb_backup.model import IN_FLIGHT, TEMPORARY, DiskVerdict, Finding, Outcome, Restorable, Severity
from immich_usb_backup.policy.disk_state import STATE
from immich_usb_backup.policy.manifest import MANIFEST
from immich_usb_backup.policy.marker import INNER_MARKER
from immich_usb_backup.policy.page import PAGE, RUNS_SHOWN, page, past_runs
from immich_usb_backup.policy.page_facts import PageFacts, PastRun, ProvenFile, in_order
from immich_usb_backup.policy.page_parts_names import PROGRAM
from immich_usb_backup.policy.readme_text import README, readme

DOCS = Path(__file__).resolve().parents[2] / "docs"
BY_HAND = DOCS / "how-to/restore-by-hand.md"
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "h3", "p"),
    *("b", "i", "a", "ul", "ol", "li", "dl", "div", "dt", "dd", "small", "span", "time", "table", "tr", "th", "td"),
    *("code", "pre", "details", "summary"),
}


def parsed(text: str) -> ET.Element:
    """By a strict parser: every element closed, every attribute quoted, every character legal."""
    assert text.startswith("<!DOCTYPE html>\n")
    return ET.fromstring(text.removeprefix("<!DOCTYPE html>\n"))


def shown(text: str) -> str:
    """What a reader sees, on one line."""
    body = parsed(text).find("body")
    assert body is not None
    return " ".join("".join(body.itertext()).split())


def commands(text: str) -> list[str]:
    """The lines that a reader would type; those that go on are joined."""
    blocks = ["".join(block.itertext()) for block in parsed(text).iter("pre")]
    return [line for block in blocks for line in re.sub(r" \\\n\s*", " ", block).splitlines()]


# Foreign text ---------------------------------------------------------------------------------------------


def holds(given_facts: PageFacts) -> None:
    """What must be true of every page."""
    text = page(given_facts)
    tree = parsed(text)
    assert {element.tag for element in tree.iter()} <= ALLOWED
    assert not [
        key for element in tree.iter() for key in element.attrib if key.startswith("on") or key in {"src", "style"}
    ]
    assert len(text.encode()) < 60_000
    ids = [element.attrib["id"] for element in tree.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids))
    for goal in [element.attrib["href"] for element in tree.iter("a")]:
        assert goal[1:] in ids if goal.startswith("#") else not re.match(r"[a-zA-Z][\w+.-]*:|[/\\.]", goal)
    for element in tree.iter():
        assert element.attrib.get("aria-labelledby", ids[0]) in ids


@pytest.mark.parametrize(
    "name",
    [
        *HOSTILE_NAMES,
        "</style></title></code>",
        "javascript:alert(1)",
        "//evil/x",
        "&lt;b&#x3e;",
        "<" * 400,
        "\u202e<\0" * 200,
    ],
)
def test_hostile_names_stay_text(name: str) -> None:
    holds(everywhere(name))


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400), st.sampled_from([True, False, None]))
def test_any_name_stays_text(name: str, cluster: bool | None) -> None:
    holds(everywhere(name, cluster=cluster))


def test_a_name_is_shown_as_it_is() -> None:
    text = shown(page(facts(disk="Mum & Dad's <disk>", server="nas \u202e")))
    assert "nas \\u202e on the disk Mum & Dad's <disk>" in text


def test_nothing_is_fetched_and_no_script_may_run() -> None:
    text = page(everywhere("<img src=https://evil/x>"))
    (policy,) = (e for e in parsed(text).iter("meta") if e.attrib.get("http-equiv") == "Content-Security-Policy")
    assert policy.attrib["content"].startswith("default-src 'none'; style-src 'unsafe-inline';")
    assert not re.search(r"url\(|@import|@font-face", text)


def test_the_links_lead_to_what_lies_beside_the_page() -> None:
    goals = {unquote(e.attrib["href"]) for e in parsed(page(facts())).iter("a") if not e.attrib["href"].startswith("#")}
    assert goals >= {
        "library/",
        "upload/",
        "profile/",
        f"database/{DUMP}",
        "config/config-2026-11-21.zip",
        README,
        "manifest.jsonl.gz",
    }


def test_a_link_leads_to_a_file_with_any_name() -> None:
    strange = "config/a#b?c%41:d.zip"
    tree = parsed(page(facts(proofs=(ProvenFile(strange, 1, "ab" * 32),))))
    (goal,) = (e.attrib["href"] for e in tree.iter("a") if e.attrib["href"].startswith("config/a"))
    assert unquote(goal) == strange
    assert not set(goal) & set("#?:")


# Secrets --------------------------------------------------------------------------------------------------


def test_places_on_the_server_and_addresses_are_not_told() -> None:
    private = ("/srv/My Photos", "/home/me/.env", "/mnt/Pictures")
    message = (
        "No dump in /srv/My Photos/backups; wrote to admin@example.org; /etc/other/place.conf, '/opt/x y' unreadable"
    )
    finding = Finding(
        code="x",
        severity=Severity.PARTIAL,
        message=message,
        hint="Look at /home/me/.env",
        items=("/mnt/Pictures/anna/a.jpg: cannot be read: /root/secret/file",),
        count=1,
    )
    verdict = replace(
        VERDICT,
        restorable=Restorable.EXCEPT,
        reasons=("1 photo below /mnt/Pictures is not here",),
        exceptions=("/mnt/Pictures/anna/b.jpg: external library", "/srv/strange place/c.jpg: external library"),
        exception_count=2,
        extra_folders=('pictures = "/mnt/Pictures"',),
    )
    text = page(facts(findings=(finding,), verdict=verdict, private=private))
    for secret in (
        "/srv",
        "My Photos",
        "/home",
        "/mnt/Pictures",
        "Pictures/anna",
        "strange place",
        "/etc",
        "/opt/x",
        "/root",
        "example.org",
    ):
        assert secret not in text, secret
    assert "…/b.jpg: external library" in shown(text)
    assert "…/a.jpg: cannot be read" in shown(text)


def test_names_of_photos_are_told_as_they_are() -> None:
    verdict = replace(
        VERDICT,
        restorable=Restorable.EXCEPT,
        exceptions=("upload/u1/photo@2x.jpg: not on the disk",),
        exception_count=1,
    )
    assert "upload/u1/photo@2x.jpg: not on the disk" in shown(page(facts(verdict=verdict)))


# What it says ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "dump", "headline", "tone"),
    [
        (VERDICT, DUMP, "Everything can be restored from this disk", "good"),
        (replace(VERDICT, restorable=Restorable.EXCEPT, exception_count=7), DUMP, "Everything but 7 files can", "warn"),
        (replace(VERDICT, restorable=Restorable.NO), DUMP, "This disk does not bring everything back", "bad"),
        (DiskVerdict(restorable=Restorable.NO, dump=DUMP, reasons=("unread",)), DUMP, "Not compared with", "warn"),
        (None, DUMP, "Not compared with", "warn"),
        (VERDICT, "", "The photos are here, the database is not", "bad"),
    ],
)
def test_the_headline_is_the_verdict(verdict: DiskVerdict | None, dump: str, headline: str, tone: str) -> None:
    tree = parsed(page(facts(verdict=verdict, dump=dump)))
    body, title = tree.find("body"), tree.find("head/title")
    assert body is not None
    assert title is not None
    assert "".join(next(body.iter("h1")).itertext()).partition(" ")[2].startswith(headline)
    assert str(title.text).startswith(f"Blue: {headline}")
    assert body.attrib["class"] == tone


def test_it_says_what_is_on_the_disk_and_since_when_it_is_proven() -> None:
    text = shown(page(facts()))
    assert "41,203 of 41,203 photos in the dump of 21 November 2026" in text
    assert "complete; 273 files copied, 1.4 GB" in text
    assert "41,990 files, 412.0 GB 587.0 GB free of 1.0 TB" in text
    assert "every file since 3 March 2026" in text
    assert "What is not right" not in text


def test_it_says_what_is_not_right() -> None:
    verdict = replace(
        VERDICT,
        restorable=Restorable.EXCEPT,
        reasons=("7 photos are not on the disk",),
        exceptions=tuple(f"library/anna/{number}.jpg: not on the disk" for number in range(40)),
        exception_count=41,
    )
    serious = Finding(
        code="x", severity=Severity.PARTIAL, message="2 files could not be read", items=("upload/u1/1.jpg",), count=2
    )
    note = Finding(code="y", severity=Severity.NOTE, message="3 files were moved")
    text = shown(page(facts(verdict=verdict, findings=(serious, note), outcome=Outcome.PARTIAL)))
    assert "What is not right 7 photos are not on the disk 41 files that would not come back library/anna/0.jpg" in text
    assert "and 21 more" in text
    assert "2 files could not be read upload/u1/1.jpg and 1 more" in text
    assert "moved" not in text
    assert "not everything; 273 files" in text


def test_the_strip_is_told_by_words_as_well_as_by_colour() -> None:
    runs = tuple(PastRun(NOW - timedelta(days=9 - number), outcome) for number, outcome in enumerate(Outcome))
    tree = parsed(page(facts(runs=runs)))
    (strip,) = (element for element in tree.iter("ol") if element.attrib.get("class") == "runs")
    told = ["".join(cell.itertext()).strip() for cell in strip]
    assert [words.rpartition(": ")[2] for words in told] == ["complete", "not everything", "failed", "interrupted"]
    assert len({words[0] for words in told}) == 4
    assert all("November 2026" in words for words in told)
    assert [[set(span.attrib) for span in cell] for cell in strip] == [[{"aria-hidden"}, {"class"}]] * 4


def test_the_strip_has_the_last_runs_of_this_disk_the_newest_last() -> None:
    this = PastRun(NOW, Outcome.OK)
    ours = [replace(make_report(outcome=Outcome.FAILED), ended=NOW - timedelta(days=number)) for number in range(1, 50)]
    disk = replace(ours[0].disk, uuid="FFFF-0000")
    reports = [report for one in ours for report in (one, replace(one, disk=disk, outcome=Outcome.PARTIAL))]
    runs = past_runs(reports, uuid="1234-ABCD", this=this)
    assert len(runs) == RUNS_SHOWN
    assert runs[-1] == this
    assert runs[-2].ended == NOW - timedelta(days=1)
    assert {run.outcome for run in runs[:-1]} == {Outcome.FAILED}
    assert list(runs) == sorted(runs)


def test_the_newest_dump_and_zip_come_first() -> None:
    names = ("config/config-2026-11-21.zip", "config/config-2026-11-21-034901.zip", "config/config-2026-10-01.zip")
    dumps = ("database/immich-db-backup-1763690400000.sql.gz", f"database/{DUMP}", "database/strange.sql.gz")
    order = [proof.path for proof in in_order(ProvenFile(path, 1, "aa") for path in (*names, *dumps))]
    assert order == [dumps[1], dumps[0], names[1], names[0], names[2]]


# The way back ---------------------------------------------------------------------------------------------


def test_our_command_is_one_that_our_program_takes() -> None:
    parser = argparse.ArgumentParser()
    restore.add_arguments(parser)
    for extra in ((), ("pictures",)):
        (line,) = (line for line in commands(page(facts(extra=extra))) if "immich-usb-backup restore" in line)
        arguments = parser.parse_args(shlex.split(line)[3:])
        restore._check_usage(arguments)
        assert arguments.dry_run
        assert [name for name, _ in arguments.extra] == (["NAME"] if extra else [])


def _documented() -> str:
    """The how-to's commands, with this disk's names in the place of its examples."""
    text = BY_HAND.read_text().replace("/media/me/Blue/", "/media/me/DISK/").replace("NAME.sql.gz", DUMP)
    return " ".join(re.sub(r" \\\n\s*", " ", text).split())


@pytest.mark.parametrize("cluster", [True, False, None])
def test_the_steps_by_hand_are_those_of_the_how_to(cluster: bool | None) -> None:
    documented = _documented()
    lines = [
        line
        for line in commands(page(facts(cluster=cluster)))
        if "psql" in line or line.startswith(("gunzip", "gzip", "sudo docker", "for"))
    ]
    assert sum("docker exec" in line for line in lines) == (2 if cluster is None else 1)
    for line in lines:
        assert all(option in documented for option in line.split()), line
        if "docker exec" not in line:
            assert line.split("#")[0].strip() in documented
    assert html.unescape(PROGRAM) in BY_HAND.read_text()


def test_the_kind_of_the_dump_decides_how_it_is_loaded() -> None:
    one, cluster = ([line for line in commands(page(facts(cluster=kind))) if "psql" in line] for kind in (False, True))
    assert "--dbname=immich --single-transaction --set ON_ERROR_STOP=on" in one[0]
    assert cluster[0].endswith("--dbname=postgres")
    assert all(f"database/{DUMP} | sed" in line and "'public, pg_catalog', true" in line for line in one + cluster)


def test_without_a_dump_no_restore_is_promised() -> None:
    text = page(facts(dump="", dump_time=None, cluster=None, proofs=(), verdict=None))
    holds(facts(dump="", dump_time=None, cluster=None, proofs=(), verdict=None))
    assert "There is no database dump on this disk" in shown(text)
    assert not [line for line in commands(text) if "psql" in line or "restore" in line]


def test_what_a_disk_is_called_is_in_no_command() -> None:
    hostile = "$(reboot)`reboot`'\";"
    text = page(everywhere(hostile))
    for line in commands(text):
        words = shlex.split(line, comments=True) if "database/" in line else []
        assert all("reboot" not in word or word.endswith(hostile) for word in words), line
        assert "reboot" not in line or "database/" in line


# The readme -----------------------------------------------------------------------------------------------


def test_the_readme_opens_in_any_editor_and_names_what_is_there() -> None:
    content = readme()
    assert content.count(b"\n") == content.count(b"\r\n") > 40
    lines = content.decode("ascii").split("\r\n")
    assert max(map(len, lines)) <= 78
    text = " ".join(content.decode().split())
    told = (PAGE, "manifest.jsonl.gz", "state.json", ".immich", "thumbs", "encoded-video", "backups", "--dry-run")
    assert [name for name in told if name not in text] == []


def test_both_are_documented_and_take_no_other_name() -> None:
    layout = (DOCS / "reference/on-disk-layout.md").read_text()
    assert all(f"| `{name}` |" in layout for name in (PAGE, README))
    assert not {PAGE.lower(), README} & {STATE, MANIFEST, INNER_MARKER, TEMPORARY, IN_FLIGHT, "approve-deletions.txt"}
