"""What takes the place of an extension that is not installed, so that a rehearsal gets at the data all the same.

A type becomes one that keeps the text of its values; a function answers as far as tables and views need it. Indexes that only
the extension can make are left out. None of it is ever put into a database that somebody uses.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass

from immich_usb_backup.policy.database_restore_scan import quoted

_TYPE = """\
CREATE TYPE {s}.{t};
CREATE FUNCTION {s}.{t}_in(cstring) RETURNS {s}.{t} LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION {s}.{t}_out({s}.{t}) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE {s}.{t} (INPUT = {s}.{t}_in, OUTPUT = {s}.{t}_out, TYPMOD_IN = varchartypmodin,
    TYPMOD_OUT = varchartypmodout, STORAGE = extended);
"""
"""Its values are kept as text; a length such as that of ``vector(512)`` is accepted and not held."""

_UUIDS = """\
CREATE FUNCTION {s}.uuid_generate_v4() RETURNS uuid LANGUAGE sql VOLATILE AS 'SELECT pg_catalog.gen_random_uuid()';
"""


@dataclass(frozen=True, slots=True)
class _StandIn:
    """``sql``, with ``{s}`` for the schema; ``index`` matches the indexes that need the extension itself."""

    sql: str
    index: re.Pattern[bytes]


def _type(name: str) -> str:
    return _TYPE.replace("{t}", name)


_NEVER = re.compile(rb"(?!)")
_EARTH = re.compile(rb"earth|cube_ops|\bcube\b")
_STAND_INS = {
    "vector": _StandIn(_type("vector"), re.compile(rb"vector_\w+_ops|halfvec_\w+_ops|USING (?:hnsw|ivfflat) ")),
    "vectors": _StandIn(_type("vector"), re.compile(rb"vector_\w+_ops|USING vectors ")),
    "vchord": _StandIn("", re.compile(rb"USING (?:vchordrq|vchordg|vchord) ")),
    "cube": _StandIn(_type("cube"), _EARTH),
    "earthdistance": _StandIn(_type("earth"), _EARTH),
    "pg_trgm": _StandIn("", re.compile(rb"g(?:in|ist)_trgm_ops")),
    "unaccent": _StandIn("", re.compile(rb"unaccent")),
    "uuid-ossp": _StandIn(_UUIDS, _NEVER),
}


def has_stand_in(extension: str) -> bool:
    """Whether the rest of a dump can be restored without this extension."""
    return extension in _STAND_INS


def stand_in(extension: str, schema: str) -> str:
    """SQL in the place of ``CREATE EXTENSION``; empty where nothing is needed."""
    known = _STAND_INS.get(extension)
    return known.sql.replace("{s}", quoted(schema)) if known else ""


def extension_of_index(statement: bytes, absent: Set[str]) -> str:
    """Which of the absent extensions an index cannot be made without; empty for none, and for other statements."""
    if not statement.startswith((b"CREATE INDEX ", b"CREATE UNIQUE INDEX ")):
        return ""
    return next(
        (name for name in sorted(absent) if name in _STAND_INS and _STAND_INS[name].index.search(statement)), ""
    )
