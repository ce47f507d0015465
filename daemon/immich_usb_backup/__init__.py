"""Plug a USB disk in, and your Immich library is on it: copied, unmounted, told."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("immich-usb-backup")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0+checkout"
