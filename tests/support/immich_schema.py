"""Databases of our own writing that have Immich's tables and columns of three eras, filled with values that hurt.

Not Immich's own SQL: names, types and the traps of a restore are the same (extensions, an index over a function that needs the
search path, an enum, triggers, camel case), the rest is left out.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

OWNER = str(uuid.UUID(int=7))

HOSTILE = (
    "plain",
    "tab\there",
    "line\nbreak",
    "carriage\rreturn",
    r"back\slash and \N and \. and \\",
    "\\.\nCOPY public.asset (id) FROM stdin;\n\\.\n",
    "COPY public.asset (id, checksum) FROM stdin;",
    "emoji 🦊 and ünïcödé",
    "it's \"quoted\" $$ -- /* ; E'\\'",
    "\\! touch /tmp/immich-usb-backup-was-here",
    "\b\f\v",
    "",
    None,
)
"""What people write into captions; None is NULL."""


@dataclass(frozen=True)
class Photo:
    """An asset: its path as Immich's database has it, and its content."""

    path: str
    content: bytes = b"x"
    external: bool = False
    trashed: bool = False

    @property
    def sha1(self) -> str:
        return hashlib.sha1(self.content, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Era:
    """A time of Immich's: its version, the asset table's name, and the folder that its paths begin with."""

    name: str
    version: str
    table: str
    prefix: str
    columns: str
    more: Mapping[str, str | None]


ERAS = (
    Era(
        "assets",
        "1.130.3",
        "assets",
        "upload/",
        '"deviceAssetId" text NOT NULL, "deviceId" text NOT NULL, "sidecarPath" text, "encodedVideoPath" text',
        {"deviceAssetId": "web-1", "deviceId": "WEB", "sidecarPath": None, "encodedVideoPath": ""},
    ),
    Era(
        "asset",
        "2.3.1",
        "asset",
        "/usr/src/app/upload/",
        '"deviceAssetId" text NOT NULL, "deviceId" text NOT NULL, "sidecarPath" text',
        {"deviceAssetId": "web-1", "deviceId": "WEB", "sidecarPath": None},
    ),
    Era(
        "checksumAlgorithm",
        "3.0.1",
        "asset",
        "/data/",
        "\"checksumAlgorithm\" public.asset_checksum_algorithm_enum NOT NULL DEFAULT 'sha1'",
        {"checksumAlgorithm": "sha1"},
    ),
)

_SCHEMA = """
CREATE EXTENSION cube;
CREATE EXTENSION earthdistance;
CREATE EXTENSION pg_trgm;
CREATE EXTENSION unaccent;
CREATE EXTENSION "uuid-ossp";
CREATE TYPE public.assets_status_enum AS ENUM ('active', 'trashed', 'deleted');
CREATE TYPE public.asset_checksum_algorithm_enum AS ENUM ('sha1', 'sha1-path');
CREATE FUNCTION public.f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
    AS $_$SELECT unaccent('unaccent', $1)$_$;
CREATE FUNCTION public.ll_to_earth_public(latitude double precision, longitude double precision) RETURNS public.earth
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT cube(cube(cube(earth()*cos(radians(latitude))*cos(radians(longitude))),
    earth()*cos(radians(latitude))*sin(radians(longitude))), earth()*sin(radians(latitude)))::public.earth
-- a comment with a ; and a ' and
COMMIT;
$$;
DO $do$ BEGIN
IF current_setting('server_version_num')::int >= 170000 THEN  -- it looks into no schema by itself when it makes an index
    CREATE OR REPLACE FUNCTION public.f_unaccent(text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
        RETURN public.unaccent('public.unaccent', $1);
    CREATE OR REPLACE FUNCTION public.ll_to_earth_public(latitude double precision, longitude double precision)
        RETURNS public.earth LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT public.cube(public.cube(public.cube(public.earth()*cos(radians(latitude))*cos(radians(longitude))),
    public.earth()*cos(radians(latitude))*sin(radians(longitude))), public.earth()*sin(radians(latitude)))::public.earth
-- a comment with a ; and a ' and
COMMIT;
$$;
END IF;
END $do$;
CREATE FUNCTION public.updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW."updatedAt" = clock_timestamp();
    RETURN NEW;
END
$$;
CREATE TABLE public."user" (id uuid PRIMARY KEY, email text NOT NULL, name text NOT NULL, "storageLabel" text);
CREATE TABLE public.{table} (
    id uuid NOT NULL DEFAULT uuid_generate_v4() PRIMARY KEY, "ownerId" uuid NOT NULL REFERENCES public."user" (id),
    type text NOT NULL, "originalPath" text NOT NULL, "originalFileName" text NOT NULL, checksum bytea NOT NULL,
    "isExternal" boolean NOT NULL DEFAULT false, "deletedAt" timestamp with time zone,
    status public.assets_status_enum NOT NULL DEFAULT 'active', "updatedAt" timestamp with time zone DEFAULT now(), {columns}
);
CREATE INDEX asset_name_idx ON public.{table} USING gin (public.f_unaccent("originalFileName") gin_trgm_ops);
CREATE TRIGGER asset_updated BEFORE UPDATE ON public.{table} FOR EACH ROW EXECUTE FUNCTION public.updated_at();
CREATE TABLE public.exif ("assetId" uuid PRIMARY KEY REFERENCES public.{table} (id), description text);
CREATE TABLE public.geodata_places (id integer PRIMARY KEY, name text, latitude double precision, longitude double precision);
CREATE INDEX geodata_earth_idx ON public.geodata_places USING gist (public.ll_to_earth_public(latitude, longitude));
CREATE TABLE public.system_metadata (key text PRIMARY KEY, value jsonb NOT NULL);
CREATE TABLE public.version_history (id uuid PRIMARY KEY, "createdAt" timestamp with time zone NOT NULL, version text NOT NULL);
CREATE VIEW public.asset_names AS SELECT "originalFileName" FROM public.{table};
INSERT INTO public.geodata_places VALUES (1, 'Łódź', 51.77, 19.46);
"""


def photos(era: Era, count: int = 3) -> tuple[Photo, ...]:
    """Some, below the era's media location, without the storage template."""
    paths = (f"{era.prefix}upload/{OWNER}/{number:02x}/aa/{uuid.UUID(int=number)}.jpg" for number in range(count))
    return tuple(Photo(path, content=path.encode()) for path in paths)


def sql(era: Era, assets: Iterable[Photo] = ()) -> str:
    """Everything that makes an empty database one of this era."""
    known = {"id": OWNER, "email": "admin@example.org", "name": HOSTILE[5], "storageLabel": "admin"}
    histories = [("2020-01-01", "9.9.9"), ("2026-01-01", era.version)]
    statements = [_SCHEMA.format(table=era.table, columns=era.columns), _insert('"user"', known)]
    for number, photo in enumerate(assets):
        identity = str(uuid.UUID(int=1000 + number))
        statements.append(_insert(era.table, _row(era, photo, identity)))
        caption = HOSTILE[number % len(HOSTILE)]
        statements.append(_insert("exif", {"assetId": identity, "description": caption}))
    if not era.prefix.startswith("upload"):
        value = f'{{"location": "{era.prefix.rstrip("/")}"}}'
        statements.append(_insert("system_metadata", {"key": "MediaLocation", "value": value}))
    for number, (time, version) in enumerate(histories):
        row = {"id": str(uuid.UUID(int=number)), "createdAt": time, "version": version}
        statements.append(_insert("version_history", row))
    return "\n".join(statements)


def _row(era: Era, photo: Photo, identity: str) -> dict[str, str | None]:
    name = photo.path.rpartition("/")[2]
    checks = {"checksum": rf"\x{photo.sha1}", "isExternal": str(photo.external).lower()}
    trash = {"deletedAt": "2026-11-01", "status": "trashed"} if photo.trashed else {}
    row = {"id": identity, "ownerId": OWNER, "type": "IMAGE", "originalPath": photo.path, "originalFileName": name}
    return row | checks | trash | dict(era.more)


def _insert(table: str, row: Mapping[str, str | None]) -> str:
    columns = ", ".join(f'"{name}"' for name in row)
    values = ", ".join("NULL" if value is None else "'" + value.replace("'", "''") + "'" for value in row.values())
    return f"INSERT INTO public.{table} ({columns}) VALUES ({values});"
