"""Fresh dumps on a real systemd: the daemon has its unit make one, within walls, as the users that a person may choose."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.samples import dump_text
from tests.vm.backup import MEDIA, OURS, STATE, Backup, marked_image
from tests.vm.image import mounted_exfat

UNIT = "immich-usb-backup-dump"
DROP_IN = f"/run/systemd/system/{UNIT}.service.d/test.conf"
DUMPS = f"{STATE}-dumps"
DUMP = "/etc/immich-usb-backup/dump.sql"

INTERNET = "203.0.113.7"
ELSEWHERE = f"""
ip address add {INTERNET}/32 dev lo
systemd-run --unit=elsewhere --collect python3 -m http.server --bind {INTERNET} 8080
until (exec 3<>/dev/tcp/{INTERNET}/8080) 2>/dev/null; do sleep 0.2; done
"""

TRY = f"""
id -un
cat {MEDIA}/upload/.immich && echo read the photos
ls {STATE}/outbox && echo read the outbox
cat /etc/immich-usb-backup/smtp-password && echo read the password for mail
for place in {STATE} /etc /usr /var/tmp/.. /home; do touch $place/x && echo wrote $place; done
touch {DUMPS}/x && rm {DUMPS}/x && echo wrote its folder
cat $CREDENTIALS_DIRECTORY/immich-api-key
(exec 3<>/dev/tcp/127.0.0.1/2525) && echo reached this machine
timeout 3 bash -c 'exec 3<>/dev/tcp/{INTERNET}/8080' && echo reached the internet
"""


@pytest_asyncio.fixture(loop_scope="session")
async def dumping(server: Backup) -> AsyncIterator[Backup]:
    """A server on which a dump can be made."""
    await server.guest.write(DUMP, dump_text([]), mode="0644")
    yield server
    await server.guest.sh(f"rm -rf {DUMP} {Path(DROP_IN).parent} {DUMPS}; systemctl daemon-reload")


def _by(*command: str) -> str:
    return f'[database]\nmode = "command"\ncommand = {list(command)}\n'.replace("'", '"')


async def _drop_in(backup: Backup, text: str) -> None:
    await backup.guest.write(DROP_IN, f"[Service]\n{text}\n")
    await backup.guest.sh("systemctl daemon-reload")


async def test_a_dump_is_made_for_each_backup_as_any_user(dumping: Backup, tmp_path: Path) -> None:
    image = marked_image(tmp_path / "blue.img")
    await dumping.start_over(_by("cat", DUMP), grace_seconds=0, mail=False)
    for user in ("immich-usb-backup-dump", "immich", "immich-usb-backup-dump"):
        await _drop_in(dumping, f"User={user}")
        ended = await dumping.plug_in(image)
        assert ended.outcome == "ok", ended.story
        assert "made for this backup: copied and read back" in ended.story
        owners = (await dumping.guest.sh(f"stat -c %U {DUMPS} {DUMPS}/*")).stdout.split()
        assert set(owners) == {user}
        assert len(owners) <= 3, "two dumps stay"
        state = await dumping.guest.sh(f"systemctl show -p ActiveState --value {UNIT}")
        assert state.stdout.strip() == "inactive"
    with mounted_exfat(image) as root:
        assert len(list((root / OURS / "database").glob("immich-db-backup-*-v2.5.2-pg14.19.sql.gz"))) == 3


async def test_without_a_fresh_dump_immichs_own_goes_and_the_reason_is_told(dumping: Backup, tmp_path: Path) -> None:
    await dumping.start_over(_by("sh", "-c", "echo nobody listens >&2; exit 3"), grace_seconds=0, mail=False)
    ended = await dumping.plug_in(marked_image(tmp_path / "blue.img"))
    assert ended.outcome == "partial", ended.story
    assert "sh: nobody listens (exit code 3)" in ended.texts("fresh-dump-failed")
    assert "Database dump of" in ended.story


async def test_what_makes_dumps_sees_no_photos_even_as_their_owner(dumping: Backup) -> None:
    guest = dumping.guest
    await guest.write("/run/try.sh", TRY, mode="0755")
    await guest.sh(ELSEWHERE)
    await guest.sh("umask 077; echo the-key > /etc/immich-usb-backup/immich-api-key")
    try:
        for user in ("immich-usb-backup-dump", "immich"):
            await _drop_in(dumping, f"User={user}\nExecStart=\nExecStart=-/bin/bash /run/try.sh\nStandardError=null")
            said = await guest.sh(
                f"systemctl restart {UNIT}; id=$(systemctl show -p InvocationID --value {UNIT}); journalctl --sync;"
                f"journalctl -q -o cat _SYSTEMD_INVOCATION_ID=$id; systemctl stop {UNIT}"
            )
            lines = [user, "wrote its folder", "the-key", "reached this machine"]
            assert said.stdout.splitlines() == lines
    finally:
        await guest.sh("rm -f /etc/immich-usb-backup/immich-api-key /run/try.sh")
        await guest.sh(f"systemctl stop elsewhere; ip address del {INTERNET}/32 dev lo")
