"""A program for people without our software: it gives restored files the server's names, and makes the links, by the
manifest. It is the one of docs/how-to/restore-by-hand.md, and a test holds the two together."""

from __future__ import annotations

PROGRAM = """\
import gzip, json, os, sys

def raw(text):
    return text.encode("utf-8", "surrogateescape")

places = [tuple(raw(argument).split(b"=", 1)) for argument in sys.argv[2:]]

def place(path):
    if b".." not in path.split(b"/"):
        for folder, goal in places:
            if path == folder or path.startswith(folder + b"/"):
                return goal + path[len(folder):]

def rename(old, new):
    if os.path.lexists(old) and not os.path.lexists(new):
        os.rename(old, new)

folders, links = [], []
for line in gzip.open(sys.argv[1]):
    entry = json.loads(line)
    if isinstance(entry, list):
        name, _, _, _, _, stored, link, guessed, *_ = entry + [None] * 7
        if here is None or guessed or "/" in name + (stored or ""):
            continue
        if link is not None:
            links.append((raw(link), os.path.join(there, raw(name))))
        elif stored:
            rename(os.path.join(here, raw(stored)), os.path.join(here, raw(name)))
    elif "folder" in entry:
        there, here = place(raw(entry["folder"])), place(raw(entry.get("stored", entry["folder"])))
        if here and there:
            folders.append((here, os.path.join(os.path.dirname(here), os.path.basename(there))))
        else:
            here = None
for old, new in reversed(folders):  # the innermost first
    rename(old, new)
for goal, path in links:
    if os.path.isdir(os.path.dirname(path)) and not os.path.lexists(path):
        os.symlink(goal, path)
"""
