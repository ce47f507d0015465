"""A message that shows whether mail arrives: the same way to the server as every other, without the notifier."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

from immich_usb_backup.adapters.clock import SystemClock
from immich_usb_backup.adapters.mail import SmtpMailer
from immich_usb_backup.config import Mail
from immich_usb_backup.doctor.checked import Checked, bad, good
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.doctor.telling import CREDENTIAL, HOW_TO
from immich_usb_backup.errors import BackupError
from immich_usb_backup.model import Notice, NoticeKind
from immich_usb_backup.policy.delivery import mail_address
from immich_usb_backup.policy.text import harmless


def send(machine: Machine, mail: Mail | None) -> Iterator[Checked]:
    """Send it to everybody in ``[mail]``, and say for each what became of it. Takes minutes where the server hangs."""
    about = "test mail"
    if mail is None:
        yield bad(about, "there is no [mail] in the configuration: nothing was sent", f"{HOW_TO} says how to set it up")
        return
    notice = _message(machine)
    mailer = SmtpMailer(mail, clock=SystemClock(), credentials=machine.path(CREDENTIAL.parent))
    try:
        refused = asyncio.run(_deliver(mailer, notice))
    except BackupError as error:
        yield bad(about, f"was not sent. {error.message}", error.hint or HOW_TO)
        return
    for channel, why in refused.items():
        yield bad(about, f"{mail_address(channel)} was refused. {why.message}", why.hint or HOW_TO)
    if taken := [one for one in mail.to if one not in map(mail_address, refused)]:
        yield good(about, f"{mail.host} took it for {', '.join(taken)}: look whether it arrives, also among the spam")


async def _deliver(mailer: SmtpMailer, notice: Notice) -> dict[str, BackupError]:
    return dict(await mailer.deliver(notice, await mailer.channels(notice)))


def _message(machine: Machine) -> Notice:
    server = harmless(socket.gethostname())
    return Notice(
        notice_id=f"test-{machine.now:%Y%m%dT%H%M%S}",
        kind=NoticeKind.TEST,
        server=server,
        time=machine.now,
        headline=f"Test message of the Immich backup on {server}",
        lines=("Somebody ran immich-usb-backup doctor --send-test-mail. Mail about backups will come the same way.",),
    )
