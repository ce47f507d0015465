"""The way back, on the page on the disk: a few photos, everything with our program, everything by hand.

The steps are those of docs/how-to/restore-by-hand.md, for the dump that lies on this disk. Nothing that a disk is called
goes into a command.
"""

from __future__ import annotations

from shlex import quote

from immich_usb_backup.policy.manifest import MANIFEST
from immich_usb_backup.policy.page_facts import PageFacts
from immich_usb_backup.policy.page_parts import esc, link, name
from immich_usb_backup.policy.page_parts_names import PROGRAM

_HERE = "/media/me/DISK/immich-server-backups"
_MEDIA = "/opt/immich-app/library"
_COMMAND_BYTES = 2000
_EXTRA = "--extra NAME=/where/it/was"
_DATABASE_ONLY = ("cd /opt/immich-app", "sudo docker compose create", "sudo docker start immich_postgres", "sleep 10")

_SEARCH_PATH = (
    "sed \"s/SELECT pg_catalog.set_config('search_path', '', false);"
    "/SELECT pg_catalog.set_config('search_path', 'public, pg_catalog', true);/g\""
)
_PSQL = "sudo docker exec -i immich_postgres psql --username=postgres"
_OF_ONE_DATABASE = f"{_PSQL} --dbname=immich --single-transaction --set ON_ERROR_STOP=on"
_OF_A_CLUSTER = f"{_PSQL} --dbname=postgres"


def section(facts: PageFacts) -> str:
    """Everything that a person needs who has this disk and nothing else."""
    return "\n".join((_photos(facts), _everything(facts)))


def _photos(facts: PageFacts) -> str:
    places = " and ".join(link(f"{folder}/") for folder in ("library", "upload") if folder in facts.folders)
    return f"""\
<section aria-labelledby="photos"><h2 id="photos">Get single photos back</h2>
<p>Copy them: they are plain files, in {places or "the folders above"}. Files in <code>upload/</code> go by a long number; look for them
by date and size, or in Immich itself (<i>Info</i> of a photo) while it still runs. A name that has <code>~</code> and eight letters and digits near
its end stands for one that this disk could not hold; {link(MANIFEST)} has the real one.</p></section>"""


def _everything(facts: PageFacts) -> str:
    body = _steps(facts) if facts.dump else _WITHOUT_DATABASE
    return f"""\
<section aria-labelledby="restore"><h2 id="restore">Restore everything</h2>
{body}</section>"""


_WITHOUT_DATABASE = """\
<p>There is no database dump on this disk. Photos and videos can be copied from it and uploaded to a new Immich, but albums, people
and users do not come back from here. Look at your other disks, and at the server’s own folder <code>backups</code>, for a dump.</p>"""


def _steps(facts: PageFacts) -> str:
    version = name(facts.verdict.immich) if facts.verdict else ""
    extra = f". Each folder in {link('extra/')} needs an <code>--extra</code> of its own" if facts.extra else ""
    wanted = (
        f"Immich <b>{version}</b> or newer" if version else "Immich in the version that the dump’s name tells, or newer"
    )
    return f"""\
<p>You need a Linux machine (WSL on Windows is one) and {wanted}. Put the server’s configuration files back first, from the newest zip in <code>config/</code> if
there is one, and <b>do not start Immich</b> before its files and its database are there. The paths are examples: <code>{_HERE}</code> is
the folder that this page lies in, <code>{_MEDIA}</code> is where Immich is to keep its files (<code>UPLOAD_LOCATION</code> in its
<code>.env</code>). Try all this on a spare machine before you need it.</p>
<h3>With immich-usb-backup</h3>
<p>Install it on the new machine. It changes nothing on this disk, checks what it needs before it begins, and can go on where it was
interrupted. The last command only says what it would do; without <code>--dry-run</code> it does it{extra}:</p>
{_commands(*_DATABASE_ONLY, _ours(*([_EXTRA] if facts.extra else []), "--dry-run"))}
<h3>By hand</h3>
<p>Nothing of ours is needed. With Immich in docker compose the commands are these:</p>
<details><summary>1. Check the dump</summary>
{_check(facts)}</details>
<details><summary>2. Copy the files</summary>
{_files(facts)}</details>
<details><summary>3. Give names and links back</summary>
{_names(facts)}</details>
<details><summary>4. Load the database</summary>
{_database(facts)}</details>
<details><summary>5. Start Immich</summary>
{_start()}</details>
"""


def _ours(*more: str) -> str:
    options = (f"--from {_HERE}", f"--to {_MEDIA}", "--docker immich_postgres", *more)
    return " \\\n    ".join(("sudo immich-usb-backup restore", *options))


def _commands(*lines: str) -> str:
    return "<pre><code>" + _lines("\n".join(lines)) + "</code></pre>"


def _lines(text: str) -> str:
    """Several lines, escaped. None that we write is cut."""
    return "\n".join(esc(line, room=_COMMAND_BYTES) for line in text.split("\n"))


def _dump(facts: PageFacts) -> str:
    return quote(f"database/{facts.dump}")


def _check(facts: PageFacts) -> str:
    dump = _dump(facts)
    return f"""\
{_commands(f"cd {_HERE}", f"gzip --test {dump} && echo whole", f"gunzip --stdout {dump} | head -n 3", f"gunzip --stdout {dump} | tail -n 6")}
<p>The last lines must hold <code>dump complete</code>. The first tell the kind: <code>PostgreSQL database dump</code> or
<code>PostgreSQL database cluster dump</code>.{_kind_words(facts)}</p>"""


def _kind_words(facts: PageFacts) -> str:
    if facts.cluster is None:
        return " Step 4 differs by it."
    return f" This one is of the {'second' if facts.cluster else 'first'} kind."


def _files(facts: PageFacts) -> str:
    folders = (
        " ".join(one for one in ("upload", "library", "profile") if one in facts.folders) or "upload library profile"
    )
    extra = (
        "\nsudo rsync -rt --exclude=/.partial extra/NAME/ /where/it/was/     # each folder in extra/"
        if facts.extra
        else ""
    )
    copy = f"""\
cd {_HERE}
sudo mkdir -p {_MEDIA}
sudo rsync -rt --exclude='/*/.partial' {folders} {_MEDIA}/{extra}
for folder in thumbs encoded-video backups; do
    sudo mkdir -p {_MEDIA}/$folder
    sudo cp upload/.immich {_MEDIA}/$folder/.immich
done"""
    return f"""\
<p>Immich needs all six of its folders, each with its file <code>.immich</code>. Three are here; the others may be empty.</p>
{_commands(copy)}
<p>This disk keeps no owners. Where Immich runs as a user of its own (not in docker compose, by default), give the files to it:
<code>sudo chown -R immich:immich {_MEDIA}</code>.</p>"""


def _names(facts: PageFacts) -> str:
    find = f"gunzip --stdout {MANIFEST} | grep -vE '(\"[0-9a-f]{{40}}\"|[0-9]|null)\\]$' | less"
    places = [f"{folder}={_MEDIA}/{folder}" for folder in ("upload", "library", "profile")]
    places += ["extra/NAME=/where/it/was"] if facts.extra else []
    run = f"sudo python3 - {MANIFEST} {' '.join(places)} <<'END'\n{PROGRAM}END"
    return f"""\
<p>Some names cannot be kept on such a disk, and links cannot. Is there any of these? This lists the folders, and every file that is
stored under another name or is a link:</p>
{_commands(f"cd {_HERE}", find)}
<p>Nothing but folders, none of them with <code>"stored"</code>? Then go on. Else this gives the copies their names, and makes the links. It
changes nothing on this disk and replaces no file.</p>
{_commands(run)}"""


def _database(facts: PageFacts) -> str:
    one = _commands(_load(facts, _OF_ONE_DATABASE))
    cluster = _commands(_load(facts, _OF_A_CLUSTER))
    begin = _commands(*_DATABASE_ONLY)
    told = "It says that a user cannot be dropped and that a role exists already; both do no harm."
    if facts.cluster is None:
        body = (
            f"<p>A dump that begins with <code>PostgreSQL database dump</code>:</p>\n{one}\n"
            f"<p>One that begins with <code>PostgreSQL database cluster dump</code>. {told}</p>\n{cluster}"
        )
    else:
        body = f"{cluster}\n<p>{told}</p>" if facts.cluster else one
    return f"""\
<p>Into a fresh database in which Immich has never been (<code>DB_DATA_LOCATION</code> is an empty folder). User and database are those of
<code>.env</code>, by default <code>postgres</code> and <code>immich</code>.</p>
{begin}
{body}
<p><code>invalid command \\restrict</code>: this <code>psql</code> is older than the dump; use one of at least 14.19, 15.14, 16.10 or
17.6.</p>"""


def _load(facts: PageFacts, psql: str) -> str:
    return f"gunzip --stdout {quote(f'{_HERE}/database/{facts.dump}')} \\\n| {_SEARCH_PATH} \\\n| {psql}"


def _start() -> str:
    return f"""\
{_commands("sudo docker compose up -d")}
<p>Look at a few photos, old and new ones. Then let Immich make thumbnails and videos again: <i>Administration</i>, <i>Jobs</i>,
<i>Generate Thumbnails</i> and <i>Transcode Videos</i>, both for <i>missing</i> ones.</p>"""
