"""A machine on which everything is set up, for the checks of `doctor`: a test breaks one thing."""

from __future__ import annotations

import asyncio
import gzip
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from immich_usb_backup.adapters.history import SqliteHistory
from immich_usb_backup.dbus_names import BUS_NAME
from immich_usb_backup.doctor.machine import Machine, Ran
from immich_usb_backup.doctor.system import ON_DEMAND, PLACES, RUNNING
from immich_usb_backup.errors import BusCallFailed
from immich_usb_backup.model import Outcome, PlugIn, RunReport
from tests.support.telling import make_report

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
DUMP = f"immich-db-backup-{int((NOW - timedelta(hours=9)).timestamp() * 1000)}.sql.gz"
DUMP_TEXT = b"--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n"
CONFIG, STATE = Path("/etc/immich-usb-backup/config.toml"), Path("/var/lib/immich-usb-backup")
PLUG_IN = PlugIn(boot_id="boot", disk_sequence=7, device_number=2049)
DISK = "P: /devices/x\nE: DEVNAME=/dev/sdb1\nE: ID_BUS=usb\nE: ID_FS_TYPE=exfat\nE: TAGS=:systemd:immich-usb-backup:\n"


def unit(name: str, **changes: str) -> str:
    """What `systemctl show` says of a unit that is as it should be."""
    facts = {
        "Id": name,
        "LoadState": "loaded",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "Result": "success",
    }
    return "\n".join(f"{key}={value}" for key, value in {**facts, **changes}.items())


@dataclass
class SetUp:
    """Files below `root`, what programs say, what D-Bus answers. All can be changed."""

    root: Path
    programs: dict[str, Ran | None] = field(default_factory=dict)
    there: set[str] = field(default_factory=lambda: {"fsck.exfat", "pg_dump"})
    answers: dict[str, Any] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    is_root: bool = True
    on_battery: bool = False
    now: datetime = NOW

    def __post_init__(self) -> None:
        blocks = [unit(name) for name in (*RUNNING, *ON_DEMAND)]
        self.programs |= {
            "getent passwd": Ran(0, "x:x:1:1::/:/bin/false\n"),
            "getent group": Ran(0, "immich-usb-backup-admins:x:990:anna\n"),
            "systemctl show": Ran(0, "\n\n".join(blocks)),
            "systemctl --global": Ran(0, "enabled\n"),
            "udevadm info": Ran(0, DISK),
            "rsync --version": Ran(0, "rsync  version 3.2.7  protocol version 31\n"),
            "modinfo -n": Ran(0, "/lib/modules/exfat.ko\n"),
        }
        self.answers |= {"NameHasOwner": True, "NTPSynchronized": True, "BackendVersion": "122"}
        self.answers["GetDisks"] = [{"Name": "Blue", "Known": True, "LastGood": 1_795_000_000, "Late": False}]
        self.answers |= {"org.freedesktop.UDisks2 Version": "2.9.4", f"{BUS_NAME} Version": "1.2"}

    def machine(self) -> Machine:
        """As the checks see it."""
        return Machine(
            root=self.root,
            is_root=self.is_root,
            find=lambda program: f"/usr/bin/{program}" if program in self.there else None,
            run=self._run,
            call=self._call,
            on_battery=lambda: self.on_battery,
            version="1.2",
            now=self.now,
        )

    def _run(self, command: Sequence[str]) -> Ran | None:
        if command[0] == "setpriv":
            path = Path(command[-1])
            inside = str(path.relative_to(self.root))
            return Ran(0, "closed " if inside in self.closed else "" if path.exists() else "gone ")
        return self.programs.get(" ".join(command[:2]), Ran(1, ""))

    def _call(self, *place: str, signature: str = "", body: Sequence[Any] = ()) -> tuple[Any, ...]:
        name = place[3] if place[3] != "Get" else str(body[1])
        answer = self.answers[name] if name in self.answers else self.answers[f"{place[0]} {name}"]
        if isinstance(answer, Exception):
            raise answer
        return (answer,)

    def write(self, path: str | Path, content: bytes | str = "") -> Path:
        """A file below the root."""
        file = self.root / str(path).lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def configure(self, *lines: str) -> None:
        """Further lines of the configuration; sections last."""
        self.write(CONFIG, "\n".join(('media_location = "/immich"', *lines)))

    def had_run(self, *, days: int, outcome: Outcome = Outcome.OK) -> None:
        """The history has one run, which ended so long ago."""
        self.write(STATE / "state.db", _history(days, outcome))


@cache
def _history(days: int, outcome: Outcome) -> bytes:
    ended = NOW - timedelta(days=days)
    report = make_report(run_id=f"r{days}", outcome=outcome, started=ended - timedelta(hours=1), ended=ended)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state.db"
        asyncio.run(_record(SqliteHistory(path), report))
        return path.read_bytes()


async def _record(history: SqliteHistory, report: RunReport) -> None:
    await history.prepare()
    await history.begin(report, PLUG_IN)
    await history.finish(report)


def set_up(root: Path) -> SetUp:
    """Everything in its place."""
    whole = SetUp(root)
    whole.configure()
    for name, folders in PLACES.values():
        whole.write(f"{folders[0]}/{name}", "x")
    for folder in ("upload", "library", "profile", "backups"):
        whole.write(f"/immich/{folder}/.immich")
    whole.write(f"/immich/backups/{DUMP}", gzip.compress(DUMP_TEXT))
    (root / str(STATE).lstrip("/") / "outbox").mkdir(parents=True)
    whole.had_run(days=2)
    return whole


def refused(name: str) -> BusCallFailed:
    """What a bus answers for somebody who is not there."""
    return BusCallFailed(f"org.freedesktop.DBus.Error.{name}", "nobody is there")
