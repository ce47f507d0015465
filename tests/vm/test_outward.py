"""What goes out of the real sandboxes: pings with an address that only root may read, and figures for Prometheus."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.vm.backup import DAEMON, STATE, Backup, marked_image

FOLDER = "/var/lib/prometheus/node-exporter"
TEXTFILE = f"{FOLDER}/immich_usb_backup.prom"
HEARD = "/root/heard"
SECRET = "3a1f77c0-SECRET"
MONITOR = f"""
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with open("{HEARD}", "a") as file:
            print(self.path.partition("?")[0], body.splitlines()[0], file=file)
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):  # the journal is looked through for the address
        pass
http.server.HTTPServer(("127.0.0.1", 8901), Handler).serve_forever()
"""
SECTIONS = f"""
[ping]

[metrics]
textfile = "{TEXTFILE}"
"""


@pytest_asyncio.fixture(loop_scope="session")
async def watched(server: Backup) -> AsyncIterator[Backup]:
    """A server with a monitor, and a folder for Prometheus that the service's user may write to and its unit may not."""
    guest = server.guest
    await guest.write("/root/monitor.py", MONITOR)
    await guest.write("/etc/immich-usb-backup/ping-url", f"http://127.0.0.1:8901/{SECRET}\n", mode="0600")
    await guest.sh(f"rm -f {HEARD}; systemd-run --unit=monitor --collect python3 -u /root/monitor.py")
    await guest.sh(f"mkdir -p {FOLDER} && chown immich-usb-backup {FOLDER}")
    await server.start_over(SECTIONS, mail=False)
    yield server
    await guest.sh(
        f"systemctl stop monitor; rm -rf {FOLDER} /etc/immich-usb-backup/ping-url /etc/systemd/system/{DAEMON}.d"
    )
    await guest.sh("systemctl daemon-reload")
    await server.start_over()


async def test_a_monitor_hears_of_begin_and_end_and_nobody_sees_its_address(watched: Backup, tmp_path: Path) -> None:
    assert (await watched.plug_in(marked_image(tmp_path / "blue.img"))).outcome == "ok"
    heard = await watched.guest.until(f"grep 'backed up' {HEARD} >/dev/null && cat {HEARD}")
    *before, last = heard.splitlines()
    assert last == f"/{SECRET} 'Blue' is backed up: safe to unplug"
    assert before in ([f"/{SECRET}/start Backing up to 'Blue'"], []), "not told when the end is there already"
    shown = await watched.guest.sh(
        f"journalctl -o export | grep -c {SECRET} || true; grep -rc {SECRET} {STATE} || true"
    )
    assert not any(line.rpartition(":")[2] not in {"", "0"} for line in shown.stdout.splitlines()), shown.stdout
    denied = await watched.guest.sh(
        "systemd-run --wait --pipe -p User=immich-usb-backup cat /etc/immich-usb-backup/ping-url && echo read || true"
    )
    assert "read" not in denied.stdout.split()


async def test_figures_are_written_once_the_unit_may(watched: Backup, tmp_path: Path) -> None:
    assert (await watched.plug_in(marked_image(tmp_path / "blue.img"))).outcome == "ok"
    said = await watched.event("metrics-failed")
    assert f"ReadWritePaths=-{FOLDER}" in str(said["MESSAGE"])
    drop_in = f"[Service]\nReadWritePaths=-{FOLDER}\n"
    await watched.guest.sh(f"mkdir -p /etc/systemd/system/{DAEMON}.d")
    await watched.guest.write(f"/etc/systemd/system/{DAEMON}.d/metrics.conf", drop_in, mode="0644")
    await watched.guest.sh("systemctl daemon-reload")
    await watched.start_over(SECTIONS, mail=False)
    assert (await watched.plug_in(marked_image(tmp_path / "again.img"))).outcome == "ok"
    text = await watched.guest.until(f"grep '^immich_usb_backup_last_success.*Blue' {TEXTFILE}")
    assert float(text.split()[-1]) > 1e9
    assert (await watched.guest.sh(f"stat -c %a {TEXTFILE}; ls {FOLDER}")).stdout.split() == [
        "644",
        "immich_usb_backup.prom",
    ]
