"""``immich-usb-backup --version``."""

from __future__ import annotations

import argparse
from typing import Any


class ShowVersion(argparse.Action):
    """Print the version and end. It is looked up only then: that takes longer than all else that a small command loads."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        """Called by argparse. Ends the program."""
        from importlib.metadata import PackageNotFoundError, version

        try:
            text = version("immich-usb-backup")
        except PackageNotFoundError:  # run from a checkout that is not installed
            text = "0+checkout"
        print(f"{parser.prog} {text}")
        parser.exit()
