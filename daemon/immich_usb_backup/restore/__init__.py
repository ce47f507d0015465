"""The way back: from a disk, or a copy of its folder, into a media location and a database. Nothing of the service is needed.

Everything here blocks, and belongs to a command in the foreground.
"""
