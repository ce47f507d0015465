"""The SQL that the documents have people type, on a real PostgreSQL."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.support import immich_schema, postgres

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/fresh-dumps.md").read_text()


def test_the_role_that_the_page_makes_can_read_and_cannot_write(postgres_server: postgres.Server) -> None:
    (role,) = re.findall(r"^sudo -u postgres createuser (\S+)$", PAGE, re.MULTILINE)
    (line,) = re.findall(r"^sudo -u postgres psql -c (.+)$", PAGE, re.MULTILINE)
    era = immich_schema.ERAS[-1]
    postgres_server.database("immich", sql=immich_schema.sql(era, immich_schema.photos(era)))
    postgres_server.psql(f'CREATE ROLE "{role}" LOGIN', database="postgres")  # what createuser does
    postgres_server.psql(shlex.split(line)[0], database="postgres")
    asked = f"SELECT has_table_privilege('{role}', oid, 'SELECT'), has_table_privilege('{role}', oid, 'INSERT')"
    rights = postgres_server.psql(f"{asked} FROM pg_class WHERE relname = '{era.table}'", database="immich")
    assert rights.strip().split("|") == ["t", "f"]
