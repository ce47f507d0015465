"""Plug a USB disk in, and your Immich library is on it: copied, unmounted, told."""
