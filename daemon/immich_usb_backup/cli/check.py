"""``immich-usb-backup check``: whether a database dump is whole, and what it says of itself. Needs no service and no disk."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from immich_usb_backup.adapters.asset_book import SqliteAssetBooks
from immich_usb_backup.adapters.source import ServerFiles
from immich_usb_backup.errors import DumpUnusable, SourceUnreadable
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.policy.assets import DumpFacts
from immich_usb_backup.policy.text import printable

_RESTRICTED = "psql: must be 14.19, 15.14, 16.10, 17.6 or newer to restore it (it has \\restrict lines)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument(
        "dump", type=Path, help="a dump of Immich's, such as immich-db-backup-….sql.gz; gzip or plain SQL"
    )
    parser.add_argument(
        "--media-location",
        type=Path,
        default=Path("/data"),
        help="where Immich's files are, for a dump that does not say so (before 1.136); default: %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Print it. 1 when it is no whole dump of Immich's. Raises ``SourceUnreadable``."""
    dump: Path = arguments.dump
    name = printable(os.fsencode(dump.name))
    try:
        if dump.is_dir():
            raise DumpUnusable(f"{name}: it is a folder, not a file with plain SQL")
        facts = asyncio.run(_facts(dump, arguments.media_location))
    except SourceUnreadable as error:
        raise SourceUnreadable(error.message, hint="Is the path right, and may you read the file?") from error
    except DumpUnusable as error:
        if arguments.json:
            print(json.dumps({"dump": name, "whole": False, "problem": error.message}, indent=2))
        else:
            print(f"!!  {error.message}\n    To do: {error.hint}")
        return ExitCode.PROBLEM
    if arguments.json:
        said = asdict(facts) | {"media_location": printable(facts.media_location)}
        print(json.dumps({"dump": name, "whole": True, "problem": None, **said}, indent=2))
    else:
        print("\n".join((f"ok  {name}: a whole dump of Immich's", *(f"    {line}" for line in _lines(facts)))))
    return ExitCode.OK


async def _facts(dump: Path, media_location: Path) -> DumpFacts:
    with tempfile.TemporaryDirectory(prefix="immich-usb-backup-") as folder:
        sha256 = await ServerFiles().sha256(dump)
        book = await SqliteAssetBooks(Path(folder)).open(dump, sha256=sha256, media_location=media_location)
        await book.close()
        return book.facts


def _lines(facts: DumpFacts) -> Iterator[str]:
    kind = "pg_dumpall (all databases of the server)" if facts.cluster else "pg_dump (one database)"
    yield f"made by: {kind}, version {facts.dump_version or 'unknown'}"
    yield f"PostgreSQL: {facts.server_version or 'unknown'}"
    yield f"Immich: {facts.immich or 'unknown'}"
    yield f"media location: {printable(facts.media_location) or 'not in the dump, as before Immich 1.136'}"
    yield f"assets: {facts.assets:,}"
    yield f"    in the trash: {facts.trashed:,}"
    yield f"    in external libraries, or outside the media location: {facts.external:,}"
    yield f"    without a SHA-1 of their content: {facts.unhashed:,}"
    if facts.restricted:
        yield _RESTRICTED
