"""A believable Immich media location, its configuration files and its database dumps.

The same seed gives the same bytes. Names and shapes are those of Immich 2.5; of the dumps with epoch
names, those of 1.120 to 1.135.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import pwd
import random
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support import host

FOLDERS = ("upload", "library", "profile", "backups", "thumbs", "encoded-video")
MEDIA_LOCATION = "/data"
STARTED_MS = 1_714_557_600_000
STORAGE_LABEL = "admin"
NANOSECOND = 123_456_789
HOSTILE_NAMES = (  # each breaks a bare rsync to exFAT in its own way
    *("IMG_9001.jpg", "img_9001.JPG", "what?.jpg", "12:30.jpg", "trailing.", "space .jpg ", "f*1.8|50mm.jpg"),
    *(
        "CON",
        "Cafe\u0301.jpg",
        "Caf\u00e9.jpg",
        "\U0001f4f7.jpg",
        "x" * 251 + ".jpg",
        'say "cheese" <now>.jpg',
    ),
)
ASSET_COLUMNS = (
    *("id", "ownerId", "type", "originalPath", "fileCreatedAt", "fileModifiedAt", "isFavorite", "duration"),
    *(
        "checksum",
        "livePhotoVideoId",
        "updatedAt",
        "createdAt",
        "originalFileName",
        "isOffline",
        "isExternal",
    ),
    *("deletedAt", "localDateTime", "visibility", "status", "checksumAlgorithm"),
)
OLD_ASSET_COLUMNS = (
    *("id", "deviceAssetId", "ownerId", "deviceId", "type", "originalPath", "checksum", "isExternal"),
    *("deletedAt", "originalFileName", "sidecarPath"),
)
SCHEMA = """
CREATE TABLE public."user" (id uuid PRIMARY KEY, email text NOT NULL, name text, "storageLabel" text);
CREATE TABLE public.album (id uuid PRIMARY KEY, "ownerId" uuid, "albumName" text, description text);
CREATE TABLE public.system_metadata (key text PRIMARY KEY, value jsonb NOT NULL);
CREATE TABLE public.asset (
    id uuid PRIMARY KEY, "ownerId" uuid NOT NULL REFERENCES public."user"(id), type text NOT NULL,
    "originalPath" text NOT NULL, "fileCreatedAt" timestamptz, "fileModifiedAt" timestamptz,
    "isFavorite" boolean, duration text, checksum bytea NOT NULL, "livePhotoVideoId" uuid,
    "updatedAt" timestamptz, "createdAt" timestamptz, "originalFileName" text, "isOffline" boolean,
    "isExternal" boolean, "deletedAt" timestamptz, "localDateTime" timestamptz, visibility text,
    status text, "checksumAlgorithm" text);
CREATE TABLE public.asset_file (id uuid PRIMARY KEY, "assetId" uuid, type text, path text);
CREATE TABLE public.version_history (id uuid PRIMARY KEY, "createdAt" timestamptz NOT NULL, version text NOT NULL);
"""
VERSIONS = ("1.135.3", "2.5.2")
"""What Immich was when the dumps were made: those with epoch names, and the others."""
COMPOSE = """name: immich
services:
  immich-server:
    container_name: immich_server
    image: ghcr.io/immich-app/immich-server:${IMMICH_VERSION:-release}
    extends:
      file: hwaccel.yml
      service: cpu
    volumes:
      - ${UPLOAD_LOCATION}:/data
    env_file:
      - .env
    restart: always
  database:
    container_name: immich_postgres
    image: ghcr.io/immich-app/postgres:14-vectorchord0.4.3-pgvectors0.2.0
    environment:
      POSTGRES_PASSWORD: ${DB_PASSWORD}
      POSTGRES_USER: ${DB_USERNAME}
      POSTGRES_DB: ${DB_DATABASE_NAME}
    volumes:
      - ${DB_DATA_LOCATION}:/var/lib/postgresql/data
"""
DOTENV = """UPLOAD_LOCATION=./library
DB_DATA_LOCATION=./postgres
IMMICH_VERSION=v2
DB_PASSWORD=sample-only
DB_USERNAME=postgres
DB_DATABASE_NAME=immich
"""
HWACCEL = """services:
  cpu: {}
  vaapi:
    devices:
      - /dev/dri:/dev/dri
"""


@dataclass(frozen=True)
class Photo:
    """An original that was made: its path below the media location and what Immich knows of it."""

    path: str
    sha1: str
    size: int
    asset_id: str
    in_trash: bool = False
    sidecar: str | None = None


@dataclass(frozen=True)
class DumpPlan:
    """Which files `backups/` holds. Every flag adds one that must not be taken for a good routine dump."""

    dated: int = 2
    epoch: int = 1
    truncated: bool = False  # the newest by its name, without its end
    temporary: bool = False  # a dump that is being written
    uploaded: bool = False  # one that the user put there
    restore_point: bool = False
    external: bool = False  # an asset of an external library that no extra folder covers


@dataclass(frozen=True)
class MediaLocation:
    """What was made, so that a test can compare."""

    path: Path
    owner_id: str
    photos: tuple[Photo, ...]
    dumps: tuple[Path, ...] = field(default=())  # whole routine dumps, the newest first

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that a backup must hold, dumps apart, as a path below the media location."""
        kept = ("upload", "library", "profile")
        found = (file for folder in kept for file in (self.path / folder).rglob("*") if file.is_file())
        return tuple(sorted(str(file.relative_to(self.path)) for file in found))


USUAL_DUMPS = DumpPlan()


def make_media_location(
    path: Path,
    *,
    photos: int = 40,
    seed: int = 1,
    with_template: bool = True,
    hostile_names: bool = False,
    dumps: DumpPlan = USUAL_DUMPS,
    now: datetime | None = None,
) -> MediaLocation:
    """Write a media location; with_template puts every second photo under `library/`.

    The newest dump is of the last 02:00 before `now` (local time, as on the server).
    """
    chance = random.Random(seed)
    owner = _uuid(chance)
    _make_folders(path)
    places = [*_places(chance, owner, photos, with_template), *_hostile_places(hostile_names)]
    made = tuple(_make_photo(chance, path, place, number) for number, place in enumerate(places))
    _make_regenerable(chance, path, owner)
    rows = tuple(_asset_rows(owner, made, external=dumps.external))
    written = _make_dumps(path / "backups", rows, dumps, now or datetime.now().astimezone())
    return MediaLocation(path=path, owner_id=owner, photos=made, dumps=written)


def make_config_files(path: Path) -> tuple[Path, ...]:
    """Write what a user of docker compose has beside the library."""
    texts = {"docker-compose.yml": COMPOSE, ".env": DOTENV, "hwaccel.yml": HWACCEL}
    path.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (path / name).write_text(text)
    return tuple(path / name for name in texts)


# Files ----------------------------------------------------------------------------------------------------


def _make_folders(path: Path) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in FOLDERS:
        (path / folder).mkdir(exist_ok=True)
        (path / folder / ".immich").write_text(str(STARTED_MS))


def _places(chance: random.Random, owner: str, photos: int, with_template: bool) -> Iterator[str]:
    """Where Immich would keep the photos."""
    for number in range(photos):
        name = _uuid(chance)
        if with_template and number % 2:
            day = datetime(2024, 5, 1, tzinfo=UTC) + timedelta(days=number // 4)
            yield f"library/{STORAGE_LABEL}/{day:%Y}/{day:%Y-%m-%d}/IMG_{number // 2 + 1:04}.jpg"
        else:
            yield f"upload/{owner}/{name[:2]}/{name[2:4]}/{name}.jpg"


def _hostile_places(wanted: bool) -> Iterator[str]:
    if wanted:
        yield from (f"library/{STORAGE_LABEL}/2024/f 1.8./{name}" for name in HOSTILE_NAMES)


def _make_photo(chance: random.Random, root: Path, place: str, number: int) -> Photo:
    """One original; every third has a sidecar, every fifth an odd time, every eleventh lies in the trash."""
    data = _jpeg(chance, chance.randrange(5_000, 400_000))
    file = root / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    _set_time(file, number)
    sidecar = f"{place}.xmp" if number % 3 == 0 and len(file.name) < 250 else None
    if sidecar is not None:
        (root / sidecar).write_text(f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><!-- {number} --></x:xmpmeta>\n')
    sha1 = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return Photo(place, sha1, len(data), _uuid(chance), in_trash=number % 11 == 10, sidecar=sidecar)


def _set_time(file: Path, number: int) -> None:
    """Whole seconds as a rule; some with nanoseconds, some of 1970, which exFAT cannot keep."""
    seconds = STARTED_MS // 1000 + 3600 * number
    nanoseconds = 0 if number % 10 == 9 else seconds * 1_000_000_000
    if number % 5 == 0:
        nanoseconds += NANOSECOND
    os.utime(file, ns=(nanoseconds, nanoseconds))


def _jpeg(chance: random.Random, size: int) -> bytes:
    """Random bytes between the first and the last marker of a JPEG file."""
    head, end = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00", b"\xff\xd9"
    return head + chance.randbytes(size - len(head) - len(end)) + end


def _make_regenerable(chance: random.Random, root: Path, owner: str) -> None:
    """An avatar, which is kept, and a thumbnail and a clip, which Immich makes again."""
    name = _uuid(chance)
    for folder, suffix in (("profile", ".jpg"), ("thumbs", "-preview.jpeg"), ("encoded-video", ".mp4")):
        parent = root / folder / owner
        if folder != "profile":
            parent = parent / name[:2] / name[2:4]
        parent.mkdir(parents=True, exist_ok=True)
        (parent / f"{name}{suffix}").write_bytes(_jpeg(chance, 6_000))


def _uuid(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


# Dumps as text --------------------------------------------------------------------------------------------


def _asset_rows(owner: str, photos: Iterable[Photo], *, external: bool) -> Iterator[dict[str, str | None]]:
    """The asset table: the photos, and rows that no verification may take for missing photos."""
    for photo in photos:
        row = _asset(owner, photo.asset_id, f"{MEDIA_LOCATION}/{photo.path}", photo.sha1, trash=photo.in_trash)
        yield row | {"sidecarPath": f"{MEDIA_LOCATION}/{photo.sidecar}" if photo.sidecar else None}
    clip = f"{MEDIA_LOCATION}/encoded-video/{owner}/aa/bb/motion-MP.mp4"
    gone = f"{MEDIA_LOCATION}/upload/{owner}/00/00/deleted.jpg"
    yield _asset(owner, str(uuid.UUID(int=1)), clip, "1" * 40)
    yield _asset(owner, str(uuid.UUID(int=2)), gone, "2" * 40, trash=True)
    if external:
        outside = "/mnt/photos/2019/outside.jpg"
        row = _asset(owner, str(uuid.UUID(int=3)), outside, hashlib.sha1(outside.encode()).hexdigest())
        yield row | {"isExternal": "t", "checksumAlgorithm": "sha1-path"}


def _asset(owner: str, asset_id: str, path: str, sha1: str, *, trash: bool = False) -> dict[str, str | None]:
    """One row, unescaped, None for NULL, with the columns of every release."""
    time = "2024-05-01 10:00:00+00"
    row = dict.fromkeys((*ASSET_COLUMNS, *OLD_ASSET_COLUMNS), None) | dict.fromkeys(
        ("fileCreatedAt", "fileModifiedAt", "updatedAt", "createdAt", "localDateTime"), time
    )
    flags = dict.fromkeys(("isFavorite", "isOffline", "isExternal"), "f")
    known = {
        "id": asset_id,
        "ownerId": owner,
        "type": "IMAGE",
        "originalPath": path,
        "checksum": rf"\x{sha1}",
    }
    state = {
        "visibility": "timeline",
        "status": "trashed" if trash else "active",
        "checksumAlgorithm": "sha1",
    }
    device = {"deviceAssetId": "web", "deviceId": "WEB", "originalFileName": path.rpartition("/")[2]}
    return row | flags | known | state | device | ({"deletedAt": time} if trash else {})


def dump_text(rows: Iterable[dict[str, str | None]], *, cluster: bool = False, old: bool = False) -> str:
    """A dump as pg_dump, or with cluster pg_dumpall, writes it; old has the table, and the relative paths, of before 1.136."""
    rows = [_relative(row) for row in rows] if old else list(rows)
    kind = "PostgreSQL database cluster dump" if cluster else "PostgreSQL database dump"
    columns, table = (OLD_ASSET_COLUMNS, "assets") if old else (ASSET_COLUMNS, "asset")
    trap = {
        "id": str(uuid.UUID(int=9)),
        "description": "a trap\nCOPY public.asset (id) FROM stdin;\n\\.\tend",
    }
    metadata = [{"key": "MediaLocation", "value": f'{{"location": "{MEDIA_LOCATION}"}}'}]
    parts = [
        f"--\n-- {kind}\n--\n\n\\restrict sample\n",
        *(["\\connect immich\n\n--\n-- PostgreSQL database dump\n--\n"] if cluster else []),
        "-- Dumped from database version 14.19 (Debian 14.19-1.pgdg12+1)\n",
        "-- Dumped by pg_dump version 14.19 (Debian 14.19-1.pgdg12+1)\n",
        "SET client_encoding = 'UTF8';\nSELECT pg_catalog.set_config('search_path', '', false);\n",
        f"DROP TABLE IF EXISTS public.{table};\nCREATE TABLE public.{table} (id uuid NOT NULL);\n",
        _copy("album", ("id", "description"), [trap]),
        _copy(table, columns, rows),
        "" if old else _copy("asset_file", ("id", "assetId", "type", "path"), _sidecar_rows(rows)),
        _copy("system_metadata", ("key", "value"), [] if old else metadata),
        _copy("version_history", ("id", "createdAt", "version"), _version_rows(old=old)),
        *(["--\n-- PostgreSQL database dump complete\n--\n"] if cluster else []),
        f"--\n-- {kind} complete\n--\n\n\\unrestrict sample\n\n",
    ]
    return "\n".join(parts)


def _relative(row: dict[str, str | None]) -> dict[str, str | None]:
    """Its paths as they were before 1.136."""
    inside = {name: row[name] for name in ("originalPath", "sidecarPath")}
    return row | {
        name: path.replace(f"{MEDIA_LOCATION}/", "upload/", 1) if path and path.startswith(MEDIA_LOCATION) else path
        for name, path in inside.items()
    }


def _sidecar_rows(rows: Iterable[Mapping[str, str | None]]) -> Iterator[dict[str, str | None]]:
    for number, row in enumerate(rows):
        if row["sidecarPath"]:
            file_id = str(uuid.UUID(int=1000 + number))
            yield {"id": file_id, "assetId": row["id"], "type": "sidecar", "path": row["sidecarPath"]}


def _version_rows(*, old: bool) -> list[dict[str, str | None]]:
    """One for each version that this database was used with, in no order."""
    versions = VERSIONS[:1] if old else VERSIONS[::-1]
    return [
        {"id": str(uuid.UUID(int=number)), "createdAt": f"{2023 + VERSIONS.index(v)}-05-01 10:00:00+00", "version": v}
        for number, v in enumerate(versions)
    ]


def _copy(table: str, columns: tuple[str, ...], rows: Iterable[Mapping[str, str | None]]) -> str:
    """A COPY block, with names quoted as PostgreSQL quotes them."""
    names = ", ".join(name if name.islower() else f'"{name}"' for name in columns)
    lines = ["\t".join(_escape(row[column]) for column in columns) for row in rows]
    return "\n".join([f"COPY public.{table} ({names}) FROM stdin;", *lines, "\\.", ""])


def _escape(text: str | None) -> str:
    if text is None:
        return r"\N"
    return text.replace("\\", "\\\\").replace("\t", r"\t").replace("\n", r"\n").replace("\r", r"\r")


def _make_dumps(
    folder: Path, rows: tuple[dict[str, str | None], ...], plan: DumpPlan, now: datetime
) -> tuple[Path, ...]:
    """Dumps of 02:00, one a day, the newest first: the dated ones, then those from before 1.136."""
    night = now.replace(hour=2, minute=0, second=0, microsecond=0)
    newest = night if night <= now else night - timedelta(days=1)
    days = [newest - timedelta(days=age) for age in range(plan.dated + plan.epoch + 1)]
    whole = gzip.compress(dump_text(rows).encode(), mtime=0)
    old = gzip.compress(dump_text(rows, cluster=True, old=True).encode(), mtime=0)
    if plan.truncated:
        _put(folder, dated_dump_name(days.pop(0)), whole[: len(whole) * 2 // 3])
    made = [_put(folder, dated_dump_name(day), whole) for day in days[: plan.dated]]
    made += [_put(folder, epoch_dump_name(day), old) for day in days[plan.dated : plan.dated + plan.epoch]]
    later = dated_dump_name(now)
    if plan.temporary:
        _put(folder, f"{later}.tmp", whole[:1000])
    if plan.uploaded:
        _put(folder, f"uploaded-{later}", whole)
    if plan.restore_point:
        _put(folder, f"restore-point-{later}", whole)
    return tuple(made)


def dated_dump_name(time: datetime, *, immich: str = "2.5.2", postgres: str = "14.19") -> str:
    """The name of a routine dump since 1.136; the time is the server's local one."""
    return f"immich-db-backup-{time:%Y%m%dT%H%M%S}-v{immich}-pg{postgres}.sql.gz"


def epoch_dump_name(time: datetime) -> str:
    """The name of a routine dump up to 1.135."""
    return f"immich-db-backup-{int(time.timestamp() * 1000)}.sql.gz"


def _put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


# A real dump ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cluster:
    """A running PostgreSQL of our own with the database `immich`."""

    programs: Path
    socket: Path
    run_as: tuple[str, ...]

    @property
    def url(self) -> str:
        return f"postgresql:///immich?host={self.socket}&user=postgres"

    @property
    def version(self) -> str:
        """As Immich puts it into a dump's name: `15.14`."""
        return self.psql("SHOW server_version").split()[0]

    def psql(self, sql: str, *, database: str = "immich") -> str:
        """Run SQL, COPY blocks included, and return unadorned rows."""
        options = ("-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", str(self.socket), "-U", "postgres")
        command = [*self.run_as, str(self.programs / "psql"), *options, "-d", database]
        done = subprocess.run(command, input=sql, capture_output=True, text=True, timeout=60, check=False)
        if done.returncode != 0:
            raise host.HostError(f"psql ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


@contextlib.contextmanager
def postgres(location: MediaLocation | None = None) -> Iterator[Cluster]:
    """A throw-away PostgreSQL with Immich's table names, and the assets of the location."""
    programs = _newest_postgres()
    with host.temporary_folder() as folder:
        data, sockets = folder / "data", folder / "run"
        data.mkdir(mode=0o700)
        sockets.mkdir(mode=0o755)
        run_as = _unprivileged(data, sockets)
        cluster = Cluster(programs, sockets, run_as)
        options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")
        host.run(*run_as, str(programs / "initdb"), *options, "-D", str(data), timeout=120)
        settings = ("-k", str(sockets), "-c", "listen_addresses=", "-c", "fsync=off")
        command = [*run_as, str(programs / "postgres"), "-D", str(data), *settings]
        with host.daemon(command, lambda: _answers(cluster), dict(os.environ)):
            cluster.psql("CREATE DATABASE immich", database="postgres")
            cluster.psql(SCHEMA + _content(location))
            yield cluster


def real_dump(path: Path, *, location: MediaLocation | None = None, now: datetime | None = None) -> Path:
    """A routine dump in folder `path`, made by a real PostgreSQL's pg_dump and gzip as Immich makes it."""
    with postgres(location) as cluster:
        name = dated_dump_name(now or datetime.now().astimezone(), postgres=cluster.version)
        target = path / name
        dumper = [*cluster.run_as, str(cluster.programs / "pg_dump"), "--clean", "--if-exists", cluster.url]
        _pipe(dumper, ["gzip", "--rsyncable"], target.with_name(f"{name}.tmp"))
        return target.with_name(f"{name}.tmp").rename(target)


def _pipe(producer: list[str], filter_: list[str], target: Path) -> None:
    """`producer | filter > target`; HostError if either fails."""
    with open(target, "wb") as out, subprocess.Popen(producer, stdout=subprocess.PIPE) as first:
        done = subprocess.run(filter_, stdin=first.stdout, stdout=out, timeout=120, check=False)
    if first.returncode or done.returncode:
        raise host.HostError(f"{producer[-4]} | {filter_[0]}: {first.returncode}, {done.returncode}")


def _content(location: MediaLocation | None) -> str:
    """SQL that fills the tables."""
    owner = location.owner_id if location else str(uuid.UUID(int=7))
    users = [{"id": owner, "email": "admin@example.org", "name": "Admin", "storageLabel": STORAGE_LABEL}]
    metadata = [{"key": "MediaLocation", "value": f'{{"location": "{MEDIA_LOCATION}"}}'}]
    rows = list(_asset_rows(owner, location.photos if location else (), external=False))
    return (
        _copy('"user"', ("id", "email", "name", "storageLabel"), users)
        + _copy("asset", ASSET_COLUMNS, rows)
        + _copy("asset_file", ("id", "assetId", "type", "path"), _sidecar_rows(rows))
        + _copy("system_metadata", ("key", "value"), metadata)
        + _copy("version_history", ("id", "createdAt", "version"), _version_rows(old=False))
    )


def _newest_postgres() -> Path:
    """The folder of the newest installed server's programs."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    versions = sorted((path.parent for path in found), key=lambda path: float(path.parent.name))
    if not versions:
        raise host.HostError("PostgreSQL is not installed: apt-get install postgresql")
    return versions[-1]


def _unprivileged(*folders: Path) -> tuple[str, ...]:
    """A prefix that runs a command as the folders' new owner: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return ()
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = known.get("postgres") or known["nobody"]
    for folder in folders:
        os.chown(folder, user.pw_uid, user.pw_gid)
    setpriv = host.find_program("setpriv") or "setpriv"
    return (setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")


def _answers(cluster: Cluster) -> bool:
    with contextlib.suppress(host.HostError):
        return cluster.psql("SELECT 1", database="postgres").strip() == "1"
    return False
