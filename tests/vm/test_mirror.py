"""A mirror on the kernel's exFAT: odd names, the fast path, moves, deletions, another server's disk."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

from tests.vm.backup import (
    COMMAND,
    MEDIA,
    OURS,
    Backup,
    everything_else,
    marked_image,
    sha256,
    without_daemon,
)
from tests.vm.image import image_hash, mounted_exfat
from tests.vm.installing import REPOSITORY

OWNERS = {"holiday.txt": b"mine", "Photos/old.jpg": bytes(range(256)) * 1000, "approve-deletions.txt": b"not here"}
ODD = "library/odd"

_NFC, _NFD = "Caf\u00e9", "Cafe\u0301"
_FILES = (
    *(
        "IMG_1.jpg",
        "img_1.JPG",
        "Img_1.jpg",
        "\u00e4.jpg",
        "\u00c4.jpg",
        "stra\u00dfe.jpg",
        "STRASSE.jpg",
        "stra\u1e9ee.jpg",
    ),
    *(
        "i.jpg",
        "I.jpg",
        "\u0131.jpg",
        "\u0130.jpg",
        "\u03c3.jpg",
        "\u03a3.jpg",
        "\u03c2.jpg",
        "\ua64a.jpg",
        "\u1c88.jpg",
    ),
    *("what?.jpg", "12:30.jpg", "f*1.8|50mm.jpg", 'say "cheese" <now>.jpg', "back\\slash.jpg", "12_30~lan6fd5f.jpg"),
    *(
        "bell\x07.jpg",
        "line\nbreak.jpg",
        "tab\t.jpg",
        "del\x7f.jpg",
        "\x01",
        "caf\udce9.jpg",
        "\udcff\udcfe",
        "\udced\udca0\udc80",
    ),
    *("trailing", "trailing.", "trailing..", "...x", "space ", "space .jpg ", " lead.jpg", "dot .", "under_"),
    *("CON", "con.jpg", "NUL.txt", "COM1.jpg", "LPT\u00b9", "aux .jpg", "CONsole.jpg", "clock$"),
    *("x" * 251 + ".jpg", ":" * 255, "\udce9" * 255, "\U0001f4f7" * 63 + ".jp", "\u00e9" * 127 + "."),
    *(
        f"{_NFC}.jpg",
        f"{_NFD}.jpg",
        "\U0001f4f7.jpg",
        "\u202egpj.exe",
        "\ufeffbom.jpg",
        "-rf",
        "$(reboot).jpg",
        "%s%n.jpg",
    ),
    *(
        "Trip/a.jpg",
        "TRIP/a.jpg",
        "trip /a.jpg",
        "Rome 1.5: on foot/a.jpg",
        "dots.../A.jpg",
        "dots.../a.jpg",
        "AUX/a.jpg",
    ),
    *("f\udcfflder/a.jpg", "\u00c4rger/a.jpg", "\u00e4rger/a.jpg", "a?/b:/c*.jpg", "both.jpg", "BOTH.JPG/a.jpg"),
    *(f"{_NFC}/1.jpg", f"{_NFD}/1.jpg", ".partial/a.jpg", "deep/" * 12 + "o?.jpg"),
)
_LINKS = {
    "link.jpg": "IMG_1.jpg",
    "dangling": "no?where",
    "folder link": "Rome 1.5: on foot",
    "away.jpg": "/etc/hostname",
}

_MAKE_ODD = """
import json, os, sys
root, files, links = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
for number, name in enumerate(files):
    path = os.path.join(root, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "x") as file:
        file.write(f"{number} {ascii(name)}")
for name, goal in links.items():
    os.symlink(goal, os.path.join(root, name))
"""
_MAKE_STRANGE = """
cd "$1"; mkfifo pipe; : > empty.jpg; truncate -s 20M sparse.mov; printf end >> sparse.mov
for year in 1970-01-01T00:00:00 1979-12-31T23:59:59 2107-12-31T23:59:58 2200-06-01T12:00:00 1901-12-14T00:00:00; do
    echo $year > of-$year.jpg; mv of-$year.jpg "of ${year%%-*}.jpg"; touch -d ${year}Z "of ${year%%-*}.jpg"
done
"""
_LISTING = """
import hashlib, json, os, stat, sys
found = {}
for top, folders, files in os.walk(sys.argv[1]):
    for name in (*folders, *files):
        path = os.path.join(top, name)
        mode = os.lstat(path).st_mode
        place = os.path.relpath(path, sys.argv[1])
        if stat.S_ISLNK(mode):
            found[place] = "-> " + os.readlink(path)
        elif stat.S_ISREG(mode):
            found[place] = hashlib.sha256(open(path, "rb").read()).hexdigest()
print(json.dumps(found))
"""


async def _make_odd(backup: Backup) -> None:
    await backup.guest.sh(f"mkdir -p {MEDIA}/{ODD}")
    await backup.python(_MAKE_ODD, f"{MEDIA}/{ODD}", json.dumps(_FILES), json.dumps(_LINKS))
    await backup.python(_MAKE_ODD, f"{MEDIA}/library", json.dumps([".partial/top.jpg"]), "{}")
    await backup.guest.sh(f"set -e; set -- {MEDIA}/{ODD}; {_MAKE_STRANGE}")


async def _listing(backup: Backup, folder: str) -> dict[str, str]:
    """Names, hashes and links' targets below a folder of the guest's."""
    found: dict[str, str] = json.loads(await backup.python(_LISTING, folder))
    return found


def _restore_program() -> str:
    """The program that our users are told to run, as the documentation has it."""
    page = (REPOSITORY / "docs/how-to/restore-by-hand.md").read_text()
    return page.partition("<<'END'\n")[2].partition("\nEND\n")[0]


async def _restored(backup: Backup) -> dict[str, str]:
    """What the documented restore makes of a plugged stick."""
    async with backup.stick_mounted(read_only=True) as root:
        await backup.guest.sh(
            f"rm -rf /root/restored; mkdir /root/restored; cd {root}/{OURS};"
            "rsync -rt --exclude='/*/.partial' upload library profile /root/restored/; cp manifest.jsonl.gz /root"
        )
    places = [f"{name}=/root/restored/{name}" for name in ("upload", "library", "profile")]
    await backup.python(_restore_program(), "/root/manifest.jsonl.gz", *places)
    return await _listing(backup, "/root/restored")


async def _lost_in_a_restore(backup: Backup) -> list[tuple[str, str]]:
    """What a restore from a plugged stick makes of the library that is not what it is; empty when nothing is."""
    return sorted(set((await _restored(backup)).items()) ^ set((await _library(backup)).items()))


async def _library(backup: Backup) -> dict[str, str]:
    listed = await _listing(backup, MEDIA)
    return {path: what for path, what in listed.items() if path.split("/")[0] in {"upload", "library", "profile"}}


def _stored_names(image: Path) -> dict[str, str]:
    """The server's paths and the disk's, as the manifest on a stick has them."""
    found: dict[str, str] = {}
    there = here = ""
    with mounted_exfat(image) as root:
        lines = gzip.decompress((root / OURS / "manifest.jsonl.gz").read_bytes()).decode().splitlines()
    for entry in map(json.loads, lines):
        if isinstance(entry, list):
            name, stored, link = entry[0], (*entry, *[None] * 8)[5], (*entry, *[None] * 8)[6]
            if link is None:
                found[f"{there}/{name}"] = f"{here}/{stored or name}"
        elif "folder" in entry:
            there, here = entry["folder"], entry.get("stored", entry["folder"])
    return found


def _but_the_page(image: Path) -> dict[str, tuple[str, int]]:
    """Hash and time of each file of the backup on a stick, but for the two that name the last run."""
    with mounted_exfat(image) as root:
        files = [path for path in (root / OURS).rglob("*") if path.is_file()]
        found = {str(path.relative_to(root / OURS)): (sha256(path), path.stat().st_mtime_ns) for path in files}
    return {path: what for path, what in found.items() if path not in {"OPEN-ME.html", "state.json"}}


async def test_every_odd_name_lies_on_the_stick_and_comes_back(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    before = everything_else(image)
    await _make_odd(backup)
    await backup.guest.plug("blue", image)
    first = await backup.ended()
    assert (first.outcome, set(first.findings)) == (
        "partial",
        {"stored-under-another-name", "link-outside", "not-a-file", "any-marked-disk"},
    ), first.story
    assert "away.jpg" in str(first.events)
    assert (lost := await _lost_in_a_restore(backup)) == [], ascii(lost)
    await backup.guest.pull("blue")
    untouched = _but_the_page(image)
    again = await backup.plug_in(image)
    assert (again.outcome, again.files, again.walked) == ("partial", 0, False), again.story
    assert _but_the_page(image) == untouched, "nothing to do, nothing written but when that was"
    assert everything_else(image) == before


async def test_a_file_that_collides_later_renames_nothing_that_is_there(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await _make_odd(backup)
    await backup.plug_in(image)
    before = _stored_names(image)
    taken = Path(before[f"{ODD}/12:30.jpg"]).name
    more = ["iMg_1.jPg", "WHAT?.jpg", taken, taken.upper(), "tRIP/a.jpg", "Trip/A.jpg", "CoN"]
    await backup.python(_MAKE_ODD, f"{MEDIA}/{ODD}", json.dumps(more), "{}")
    gone = [f"{ODD}/IMG_1.jpg", f"{ODD}/\u00e4.jpg"]
    await backup.guest.sh(f"cd {MEDIA}; rm {' '.join(gone)}")
    await backup.guest.plug("blue", image)
    second = await backup.ended()
    assert second.files == len(more), second.story
    assert (lost := await _lost_in_a_restore(backup)) == [], ascii(lost)
    await backup.guest.pull("blue")
    after = _stored_names(image)
    assert {path: after.get(path) for path in before if path not in gone} == {
        path: stored for path, stored in before.items() if path not in gone
    }
    assert len(after) == len(before) + len(more) - len(gone)


async def test_what_others_did_to_the_stick_is_found_said_and_repaired(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    before = everything_else(image)
    await backup.make_photos("upload/fast", range(60), seed=2)
    assert (await backup.plug_in(image)).outcome == "ok"
    untouched = _but_the_page(image)
    await backup.guest.plug("blue", image)
    quick = await backup.ended()
    assert (quick.outcome, quick.files, quick.walked) == ("ok", 0, False), quick.story
    await backup.guest.pull("blue")
    assert _but_the_page(image) == untouched
    async with without_daemon(backup.guest):
        await backup.guest.plug("blue", image)
        async with backup.stick_mounted() as root:
            await backup.guest.sh(
                f"cd {root}/{OURS}/upload/fast; rm 7.jpg; truncate -s 100 8.jpg; head -c 200000 /dev/zero > new.jpg"
            )
        await backup.guest.pull("blue")
    repaired = await backup.plug_in(image)
    assert (repaired.outcome, repaired.walked, repaired.files) == ("ok", True, 2), repaired.story
    assert {"files-missing", "moved-aside"} <= set(repaired.findings), repaired.story
    assert "free room" in repaired.one("disk-walked")["MESSAGE"]
    assert "1 file of the backup had gone" in repaired.texts("files-missing")
    assert await backup.differences(image) == []
    with mounted_exfat(image) as root:
        assert [path.name for path in root.glob(f"{OURS}/deleted/*/upload/fast/new.jpg")]
    assert not (await backup.plug_in(image)).walked
    assert everything_else(image) == before


async def test_rot_on_the_stick_is_found_by_verify_and_repaired(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.guest.sh(f"yes immich | head -c 300000 > {MEDIA}/upload/rot.jpg")
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.guest.plug("blue", image)
    assert not (await backup.ended()).walked
    started = await backup.guest.sh(f"{COMMAND} backup --mode verify Blue", check=False)
    assert started.returncode == 0, started
    proven = await backup.ended()
    assert proven.outcome == "ok", proven.story
    await backup.guest.pull("blue")
    content = bytearray(image.read_bytes())
    at = content.index(b"immich\nimmich\n" * 100) + 1000
    content[at] ^= 1
    image.write_bytes(content)
    await backup.guest.plug("blue", image)
    assert (await backup.ended()).outcome == "ok", "quick does not read the originals"
    await backup.guest.sh(f"{COMMAND} backup --mode verify Blue")
    found = await backup.ended()
    assert (found.outcome, "disk-rotten" in found.findings) == ("partial", True), found.story
    assert "rot.jpg" in str(found.events)
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []


async def test_photos_that_the_storage_template_moves_are_moved_on_the_stick(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.make_photos("upload/template", range(300), seed=3)
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.guest.sh(
        f"cd {MEDIA}; mkdir -p 'library/admin/2024/Rome: day 1'; for n in $(seq 0 299); do"
        ' mv upload/template/$n.jpg "library/admin/2024/Rome: day 1/IMG_$n.jpg"; done; rmdir upload/template'
    )
    moved = await backup.plug_in(image)
    plan = moved.one("plan-made")
    assert (plan["IMMICH_BACKUP_MOVED_FILES"], plan["IMMICH_BACKUP_NEW_FILES"]) == ("300", "0"), moved.story
    assert (moved.outcome, moved.files, moved.walked) == ("ok", 0, False), moved.story
    stored = _stored_names(image)
    assert sum("Rome: day 1" in path for path in stored) == 300
    with mounted_exfat(image) as root:
        assert not list(root.glob(f"{OURS}/deleted/*"))
        assert len(list(root.glob(f"{OURS}/library/admin/2024/Rome*/IMG_*.jpg"))) == 300


async def test_many_deletions_wait_for_an_approval_and_plugging_in_is_none(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    before = everything_else(image)
    await backup.make_photos("upload/many", range(150), seed=4, kib=2)
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.guest.sh(f"rm -r {MEDIA}/upload/many")
    await backup.make_photos("upload/new", range(3), seed=5)
    held = await backup.plug_in(image)
    assert (held.outcome, held.findings, held.files) == ("partial", ("deletions-held",), 3), held.story
    assert "150 files" in held.texts("deletions-held")
    await backup.guest.plug("blue", image)
    assert (await backup.ended()).findings == ("deletions-held",)
    refused = await backup.as_nobody("approve", "Blue")
    assert refused.returncode != 0
    assert "may not" in refused.stderr
    direct = (
        "busctl call io.github.immich_usb_backup1 /io/github/immich_usb_backup1"
        " io.github.immich_usb_backup1.Manager Approve s Blue"
    )
    denied = await backup.guest.sh(f"runuser -u nobody -- {direct}", check=False)
    assert denied.returncode != 0
    assert "You may not do this" in denied.stderr
    said = await backup.guest.sh(f"{COMMAND} approve Blue")
    assert "150 deletions approved" in said.stdout
    approved = await backup.ended()
    assert approved.outcome == "ok", approved.story
    assert "150 files" in approved.texts("moved-aside")
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []
    with mounted_exfat(image) as root:
        assert len(list(root.glob(f"{OURS}/deleted/*/upload/many/*.jpg"))) == 150
    assert everything_else(image) == before


async def test_without_immichs_mark_nothing_goes_until_a_file_on_the_stick_approves(
    backup: Backup, tmp_path: Path
) -> None:
    image = marked_image(tmp_path / "blue.img")
    await backup.make_photos("upload/few", range(5), seed=6)
    assert (await backup.plug_in(image)).outcome == "ok"
    await backup.guest.sh(f"rm -r {MEDIA}/upload/few {MEDIA}/upload/.immich")
    held = await backup.plug_in(image)
    assert (held.outcome, "deletions-held" in held.findings) == ("partial", True), held.story
    assert ".immich is missing in upload" in held.texts("deletions-held")
    with mounted_exfat(image, writable=True) as root:
        (root / OURS / "Approve-Deletions.txt.txt").write_bytes(b"")
        assert len(list((root / OURS / "upload/few").iterdir())) == 5
    approved = await backup.plug_in(image)
    assert "moved-aside" in approved.findings, approved.story
    with mounted_exfat(image) as root:
        assert not (root / OURS / "upload/few").exists()
        assert not list((root / OURS).glob("[Aa]pprove*"))
    await backup.make_photos("upload/later", range(5), seed=7)
    assert (await backup.plug_in(image)).files == 5
    await backup.guest.sh(f"rm -r {MEDIA}/upload/later")
    assert "deletions-held" in (await backup.plug_in(image)).findings, "an approval is used up"


async def test_what_was_deleted_long_ago_goes_and_what_was_not_stays(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    assert (await backup.plug_in(image)).outcome == "ok"
    with mounted_exfat(image, writable=True) as root:
        for name in ("20200101/upload/old.jpg", "29991231/upload/new.jpg", "mine/kept.jpg"):
            path = root / OURS / "deleted" / name
            path.parent.mkdir(parents=True)
            path.write_bytes(b"a photo")
    ended = await backup.plug_in(image)
    assert ended.outcome == "ok", ended.story
    assert "2020-01-01" in ended.texts("deleted-purged")
    with mounted_exfat(image) as root:
        assert {path.name for path in (root / OURS / "deleted").iterdir()} == {"29991231", "mine"}


async def test_another_servers_disk_is_left_alone_until_it_is_adopted(backup: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img", extra=OWNERS)
    assert (await backup.plug_in(image)).outcome == "ok"
    before = image_hash(image)
    await backup.start_over(grace_seconds=0, mail=False)  # the same library on a server that remembers nothing
    refused = await backup.plug_in(image)
    assert (refused.outcome, refused.findings) == ("failed", ("foreign-backup",)), refused.story
    assert re.search(r"another server, 'guest', last written", refused.one("run-failed")["MESSAGE"]), refused.story
    assert image_hash(image) == before
    await backup.guest.plug("blue", image)
    assert (await backup.ended()).outcome == "failed"
    assert (await backup.as_nobody("adopt", "Blue")).returncode != 0
    await backup.guest.sh(f"{COMMAND} adopt Blue")
    adopted = await backup.ended()
    assert (adopted.outcome, adopted.files) == ("ok", 0), adopted.story
    await backup.guest.pull("blue")
    assert await backup.differences(image) == []
    again = await backup.plug_in(image)
    assert (again.outcome, again.walked) == ("ok", False), again.story
