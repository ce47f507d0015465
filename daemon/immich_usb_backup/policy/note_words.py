"""What buttons on the desktop say, and what stands in the message when the service has answered: each text once."""

from __future__ import annotations

from enum import StrEnum

from immich_usb_backup.dbus_names import ERROR
from immich_usb_backup.policy.text import counted, harmless, printable, sentence

NO_ANSWER = "The backup service did not answer in time. Look with: immich-usb-backup status"
_GONE = "The backup service does not run. See: systemctl status immich-usb-backup"
_DENIED = "You may not do this: members of the group immich-usb-backup-admins may, and whoever knows an administrator's password."
_OTHER_VERSION = "The backup service is of another version. Restart it: sudo systemctl restart immich-usb-backup"
_BUS_ERRORS = {
    "AccessDenied": _DENIED,
    "InteractiveAuthorizationRequired": _DENIED,
    "ServiceUnknown": _GONE,
    "NameHasNoOwner": _GONE,
    "NoReply": _GONE,
    "UnknownMethod": _OTHER_VERSION,
    "UnknownInterface": _OTHER_VERSION,
    "UnknownObject": _OTHER_VERSION,
}


class Action(StrEnum):
    """What a button asks the service for."""

    CANCEL = "cancel"
    APPROVE = "approve"
    EJECT = "eject"


LABELS = {Action.CANCEL: "Cancel", Action.APPROVE: "Approve deletions", Action.EJECT: "Eject"}
PENDING = {
    Action.CANCEL: "Asking the backup to stop …",
    Action.APPROVE: "Approving the deletions …",
    Action.EJECT: "Ejecting: please leave it plugged in …",
}


def done(action: Action, disk: str, answer: object) -> str:
    """What the service has agreed to. ``answer`` is what the method answered: for ``APPROVE`` the number of files."""
    name = f"'{printable(disk)}'"
    if action is Action.CANCEL:
        return f"The backup to {name} is being stopped: wait until it is safe to unplug."
    if action is Action.EJECT:
        return f"{name} is unmounted: safe to unplug."
    if not isinstance(answer, int) or answer <= 0:
        return "No deletions are held any more."
    return f"{counted(answer, 'deletion')} approved: carried out now, or when {name} is plugged in again."


def refused(name: str, message: str) -> str:
    """Why the service (or the bus) did not do it, from the name and the text of the D-Bus error."""
    family, _, kind = name.rpartition(".")
    if family != ERROR and kind in _BUS_ERRORS:
        return _BUS_ERRORS[kind]
    return sentence("Not done", harmless(message))
