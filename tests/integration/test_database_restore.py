"""The database's way back, with a real PostgreSQL: what was dumped is what is there afterwards, or nothing is."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from immich_usb_backup.__main__ import main
from immich_usb_backup.errors import BackupError, DatabaseFailed, DatabaseRefused, DeadlineMissed, DumpUnusable
from immich_usb_backup.exit_codes import ExitCode
from immich_usb_backup.restore.database import (
    DatabasePlan,
    DatabaseResult,
    DatabaseTarget,
    check_target,
    restore_database,
)
from tests.support import immich_schema as schema
from tests.support import postgres

OLD, MIDDLE, NEW = schema.ERAS
BY_ERA = [(OLD, "pg_dumpall"), (OLD, "pg_dump"), (MIDDLE, "pg_dump"), (MIDDLE, "pg_dumpall"), (NEW, "pg_dump")]


@pytest.fixture
def server(postgres_server: postgres.Server) -> postgres.Server:
    return postgres_server


def _quiet(line: str) -> None:
    assert line


def _restore(plan: DatabasePlan) -> DatabaseResult:
    return restore_database(plan, _quiet)


def _changed(dump: Path, change: Callable[[str], str], name: str = "changed.sql") -> Path:
    """A dump with other lines, unpacked."""
    target = dump.with_name(name)
    target.write_text(change(gzip.decompress(dump.read_bytes()).decode()))
    return target


def _after_tables(text: str, sql: str) -> str:
    """The dump with a statement after its last COPY."""
    head, end, tail = text.rpartition("\n\\.\n")
    return f"{head}{end}\n{sql}\n{tail}"


@pytest.mark.parametrize(("era", "tool"), BY_ERA, ids=[f"{era.name}-{tool}" for era, tool in BY_ERA])
def test_every_row_comes_back(server: postgres.Server, tmp_path: Path, era: schema.Era, tool: str) -> None:
    origin = server.database("immich", sql=schema.sql(era, schema.photos(era, 14)))
    server.psql("ALTER DATABASE immich SET search_path TO '$user', public, vectors", database="postgres")
    content = server.content(origin)
    dump = server.dump(origin, tmp_path / f"immich-db-backup-20261120T020000-v{era.version}-pg15.18.sql.gz", tool=tool)
    server.drop(origin)
    target = server.database()
    plan = check_target(dump, DatabaseTarget(url=server.url(target)))
    result = _restore(plan)
    assert server.content(target) == content
    assert len(content["exif"]) == 14
    assert plan.immich == era.version
    assert any(f"Immich {era.version}" in line for line in plan.lines)
    assert any("14 assets" in line for line in result.lines)
    indexes = server.psql("SELECT indexname FROM pg_indexes WHERE schemaname = 'public'", database=target)
    assert {"asset_name_idx", "geodata_earth_idx"} <= set(indexes.split())
    if tool == "pg_dumpall":
        assert "vectors" in server.psql("SHOW search_path", database=target)


def test_a_dump_that_is_not_packed_comes_back(server: postgres.Server, tmp_path: Path) -> None:
    plain = _changed(postgres.era_dump(server, NEW, tmp_path), str)
    target = server.database()
    _restore(check_target(plain, DatabaseTarget(url=server.url(target))))
    assert len(server.content(target)["asset"]) == 14


def test_the_version_comes_from_the_table_where_the_name_does_not_tell(server: postgres.Server, tmp_path: Path) -> None:
    dump = postgres.era_dump(server, MIDDLE, tmp_path).rename(tmp_path / "immich-db-backup-1763690400000.sql.gz")
    assert check_target(dump, DatabaseTarget(url=server.url(server.database()))).immich == "2.3.1"


def test_a_database_that_is_not_empty_is_refused_and_left_alone(server: postgres.Server, tmp_path: Path) -> None:
    dump = postgres.era_dump(server, NEW, tmp_path)
    target = server.database(sql="CREATE TABLE precious (x int); INSERT INTO precious VALUES (1);")
    with pytest.raises(DatabaseRefused, match=r"not empty.*public\.precious"):
        check_target(dump, DatabaseTarget(url=server.url(target)))
    assert server.content(target) == {"precious": ["1"]}


def test_extensions_that_are_there_already_do_not_count(server: postgres.Server, tmp_path: Path) -> None:
    """As on NixOS, where a superuser creates them and Immich's own user owns the rest."""
    dump = _changed(postgres.era_dump(server, NEW, tmp_path), lambda text: text.replace("TO postgres;", "TO nina;"))
    server.psql("CREATE ROLE nina LOGIN", database="postgres")
    target = server.database(sql="CREATE EXTENSION cube; CREATE EXTENSION earthdistance; CREATE EXTENSION unaccent;")
    url = DatabaseTarget(url=server.url(target, user="nina"))
    server.psql(f"ALTER DATABASE {target} OWNER TO nina", database="postgres")
    _restore(check_target(dump, url))
    assert len(server.content(target)["asset"]) == 14


def test_an_extension_that_is_missing_is_named(server: postgres.Server, tmp_path: Path) -> None:
    extension = "CREATE EXTENSION IF NOT EXISTS vchord WITH SCHEMA public;"
    dump = _changed(postgres.era_dump(server, NEW, tmp_path), lambda text: _after_tables(text, extension))
    target = server.database()
    with pytest.raises(DatabaseRefused, match=r"lacks 1 extension .*vchord \(VectorChord\)"):
        check_target(dump, DatabaseTarget(url=server.url(target)))


def test_of_several_databases_of_immichs_the_one_of_the_same_name_is_meant(
    server: postgres.Server, tmp_path: Path
) -> None:
    for name, count in (("immich", 2), ("immich_test", 3)):
        server.database(name, sql=schema.sql(NEW, schema.photos(NEW, count)))
    dump = server.dump("", tmp_path / "all.sql.gz", tool="pg_dumpall")
    server.clean()
    with pytest.raises(DumpUnusable, match="several databases with assets: immich, immich_test"):
        check_target(dump, DatabaseTarget(url=server.url(server.database())))
    _restore(check_target(dump, DatabaseTarget(url=server.url(server.database("immich_test")))))
    assert len(server.content("immich_test")["asset"]) == 3


def test_every_reason_is_told_at_once(server: postgres.Server, tmp_path: Path) -> None:
    def change(text: str) -> str:
        text = text.replace("OWNER TO postgres;", "OWNER TO otto;")
        text = re.sub("database version [0-9]+", "database version 99", text)
        return _after_tables(text, "CREATE EXTENSION IF NOT EXISTS vectors WITH SCHEMA vectors;")

    dump = _changed(postgres.era_dump(server, NEW, tmp_path), change)
    target = server.database(sql="CREATE VIEW mine AS SELECT 1")
    with pytest.raises(DatabaseRefused) as caught:
        check_target(dump, DatabaseTarget(url=server.url(target)))
    for word in ("not empty", "pgvecto.rs", "otto", "server is older"):
        assert word in caught.value.message
    assert "createuser otto" in (caught.value.hint or "")


def test_an_error_is_shown_whole_and_leaves_the_database_empty(server: postgres.Server, tmp_path: Path) -> None:
    change = lambda text: _after_tables(text, "ALTER TABLE public.nowhere ADD COLUMN x int;")  # noqa: E731
    dump = _changed(postgres.era_dump(server, NEW, tmp_path), change)
    target = server.database()
    plan = check_target(dump, DatabaseTarget(url=server.url(target)))
    with pytest.raises(DatabaseFailed, match=r'relation "public\.nowhere" does not exist') as caught:
        _restore(plan)
    assert caught.value.hint == DatabaseFailed.default_hint
    assert server.content(target) == {}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_dump_that_breaks_off_on_the_way_leaves_the_database_empty(
    server: postgres.Server, tmp_path: Path, share: float
) -> None:
    """psql --single-transaction would commit what it has got. More is sent than any buffer on the way takes."""
    places = "INSERT INTO geodata_places SELECT i, md5(i::text), 50, 20 FROM generate_series(2, 60000) i;"
    server.database("immich", sql=schema.sql(NEW, schema.photos(NEW, 14)) + places)
    dump = server.dump("immich", tmp_path / "dump.sql.gz")
    target = server.database()
    plan = check_target(dump, DatabaseTarget(url=server.url(target)))
    content = dump.read_bytes()
    dump.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DumpUnusable, match="cut off"):
        _restore(plan)
    assert server.content(target) == {}
    dump.write_bytes(content)
    _restore(plan)
    assert len(server.content(target)["asset"]) == 14


def test_a_damaged_dump_is_refused_before_the_database_is_touched(server: postgres.Server, tmp_path: Path) -> None:
    dump = postgres.era_dump(server, NEW, tmp_path)
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 0xFF
    dump.write_bytes(content)
    with pytest.raises(DumpUnusable, match="damaged"):
        check_target(dump, DatabaseTarget(url=server.url(server.database())))


def test_a_command_in_a_dump_is_never_run(server: postgres.Server, tmp_path: Path) -> None:
    trace = tmp_path / "was-here"
    dump = postgres.era_dump(server, NEW, tmp_path)
    for number, attack in enumerate((f"\\! touch {trace}", f"SELECT 1 \\g |touch {trace}", f"\\o |touch {trace}")):
        changed = _changed(dump, lambda text, attack=attack: _after_tables(text, attack), f"{number}.sql")  # type: ignore[misc]
        with pytest.raises(DumpUnusable, match="command that no dump"):
            check_target(changed, DatabaseTarget(url=server.url(server.database())))
    assert not trace.exists()


def test_a_whole_servers_dump_touches_nothing_but_immichs_database(server: postgres.Server, tmp_path: Path) -> None:
    server.psql("CREATE ROLE peter LOGIN PASSWORD 'then'", database="postgres")
    server.database("other", sql="CREATE TABLE notes (x text); INSERT INTO notes VALUES ('then');")
    dump = postgres.era_dump(server, OLD, tmp_path, tool="pg_dumpall")
    server.psql("UPDATE notes SET x = 'now'", database="other")
    server.psql("ALTER ROLE peter PASSWORD 'now'", database="postgres")
    secrets = "SELECT rolname, rolpassword FROM pg_authid ORDER BY 1"
    before = server.psql(secrets, database="postgres")
    _restore(check_target(dump, DatabaseTarget(url=server.url(server.database()))))
    assert server.content("other") == {"notes": ["now"]}
    assert server.psql(secrets, database="postgres") == before


def test_a_whole_servers_dump_brings_the_users_that_its_tables_belong_to(
    server: postgres.Server, tmp_path: Path
) -> None:
    server.psql("CREATE ROLE emma LOGIN PASSWORD 'hers'; CREATE ROLE nobodys;", database="postgres")
    server.database("immich", sql=schema.sql(OLD, schema.photos(OLD)) + "ALTER TABLE public.exif OWNER TO emma;")
    dump = server.dump("immich", tmp_path / "dump.sql.gz", tool="pg_dumpall")
    server.drop("immich")
    server.psql("DROP ROLE emma; DROP ROLE nobodys;", database="postgres")
    target = server.database()
    plan = check_target(dump, DatabaseTarget(url=server.url(target)))
    _restore(plan)
    assert any("created: emma" in line for line in plan.lines)
    owner = server.psql("SELECT tableowner FROM pg_tables WHERE tablename = 'exif'", database=target)
    assert owner.strip() == "emma"
    roles = server.psql("SELECT rolname FROM pg_roles WHERE rolcanlogin", database=target).split()
    assert "emma" in roles
    assert "nobodys" not in server.psql("SELECT rolname FROM pg_roles", database=target).split()


def test_it_goes_through_docker(server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = server.database()
    inside = {"PGHOST": str(server.cluster.socket), "POSTGRES_DB": target, "POSTGRES_USER": "postgres"}
    for key, value in postgres.put_docker(tmp_path, inside).items():
        monkeypatch.setenv(key, value)
    dump = postgres.era_dump(server, MIDDLE, tmp_path)
    _restore(check_target(dump, DatabaseTarget(docker="immich_postgres")))
    assert len(server.content(target)["asset"]) == 14
    with pytest.raises(DatabaseRefused, match="No such container: elsewhere"):
        check_target(dump, DatabaseTarget(docker="elsewhere"))


def test_a_server_that_hangs_ends_in_an_error(server: postgres.Server, tmp_path: Path) -> None:
    """The change to a table waits for a lock that somebody else holds for good."""
    sleep = "SELECT pg_catalog.pg_sleep(600);"
    dump = _changed(postgres.era_dump(server, NEW, tmp_path), lambda text: _after_tables(text, sleep))
    target = server.database()
    plan = check_target(dump, DatabaseTarget(url=server.url(target)))
    with pytest.raises(DeadlineMissed, match="took nothing more"):
        restore_database(plan, _quiet, stall_seconds=1.0)
    server.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%sleep(600)%' AND pid <> pg_backend_pid()",
        database="postgres",
    )
    assert server.content(target) == {}


def test_the_command_restores_the_newest_dump_of_a_disk(
    server: postgres.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "disk/immich-server-backups/database"
    folder.mkdir(parents=True)
    postgres.era_dump(server, MIDDLE, folder)
    target = server.database()
    command = ["restore", "--from", str(tmp_path / "disk"), "--only", "database", "--database", server.url(target)]
    assert main([*command, "--dry-run"]) == ExitCode.OK
    assert server.content(target) == {}
    assert main(command) == ExitCode.OK
    assert len(server.content(target)["asset"]) == 14
    assert "Immich 2.3.1: start this version on it, or a newer one" in capsys.readouterr().out
    assert main(command) == ExitCode.UNAVAILABLE
    assert "is not empty" in capsys.readouterr().err


def test_a_database_that_does_not_exist_is_told_with_what_makes_it(server: postgres.Server, tmp_path: Path) -> None:
    with pytest.raises(DatabaseRefused, match='database "nowhere" does not exist') as caught:
        check_target(tmp_path / "none", DatabaseTarget(url=server.url("nowhere")))
    assert "createdb" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql:///x?host=/nowhere", "nowhere"),
        ("postgresql://127.0.0.1:1/immich", "refused"),
        ("mysql://x", "does not begin with postgresql://"),
    ],
)
def test_a_server_that_is_not_there_is_an_error_in_words(tmp_path: Path, url: str, words: str) -> None:
    with pytest.raises(BackupError, match=words):
        check_target(tmp_path / "none", DatabaseTarget(url=url))


def test_a_password_is_on_no_command_line(
    server: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "arguments"
    program = tmp_path / "psql"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {log}\necho "password: $PGPASSWORD" >> {log}\nexec /usr/bin/psql "$@"\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    dump = postgres.era_dump(server, NEW, tmp_path)
    url = server.url(server.database()).replace("postgres@", "postgres:se%20cret@")
    _restore(check_target(dump, DatabaseTarget(url=url)))
    lines = log.read_text().splitlines()
    assert all(re.search("secret|se%20cret|se cret", line) is None for line in lines if not line.startswith("password"))
    assert lines.count("password: se cret") >= 3
