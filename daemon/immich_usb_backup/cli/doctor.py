"""``immich-usb-backup doctor``: looks at the whole set-up, and says how to mend what is wrong. Changes nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from immich_usb_backup import config as configuration
from immich_usb_backup.cli.paths import state_folder
from immich_usb_backup.cli.terminal import Terminal
from immich_usb_backup.doctor.checked import Checked, Result, as_json, lines, summary
from immich_usb_backup.doctor.everything import look
from immich_usb_backup.doctor.machine import Machine
from immich_usb_backup.exit_codes import ExitCode


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument("--state", type=Path, help="the service's folder; default: /var/lib/immich-usb-backup")
    parser.add_argument("--send-test-mail", action="store_true", help="send a message to everybody in [mail]")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(arguments: argparse.Namespace) -> int:
    """Look, and print as it goes. 1 where there is a problem."""
    machine = Machine()
    terminal, found = Terminal(), list[Checked]()
    state = state_folder(arguments.state)
    for one in look(machine, arguments.config, state, send_mail=arguments.send_test_mail):
        found.append(one)
        if not arguments.json:
            terminal.say(*lines(one, terminal.columns))
    print(json.dumps(as_json(found), indent=2) if arguments.json else summary(found))
    return ExitCode.PROBLEM if any(one.result is Result.PROBLEM for one in found) else ExitCode.OK
