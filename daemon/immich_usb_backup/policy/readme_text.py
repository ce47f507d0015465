"""The text on the disk for people without a browser. It names nothing of this server, so it is written once."""

from __future__ import annotations

README = "readme.txt"
"""Its name on the disk, in the backup folder. Ours to overwrite."""

_TEXT = """\
BACKUP OF AN IMMICH SERVER
==========================

This folder was written by immich-usb-backup. It holds copies of the photos
and videos that an Immich server keeps, and what is needed to set that server
up again. They are plain files: every computer that reads this disk can open
and copy them. Nothing is encrypted: keep this disk as you would keep the
photos, and the passwords in the configuration.

Open OPEN-ME.html in a browser: when the last backup was, what it is worth,
and every step of a restore, with the names of the files on this disk. It
needs no internet.


WHAT IS HERE

  OPEN-ME.html         begin here
  upload, library      photos and videos
  profile              users' profile pictures
  extra                further folders of the server, if there were any
  database             Immich's database: users, albums, people, settings
  config               the server's configuration files, zipped
  deleted              what was deleted in Immich, by the day, for some weeks
  manifest.jsonl.gz    the list of it all, with the server's names
  state.json           whose backup this is. "writing": true means that the
                       last backup was not finished


A FEW PHOTOS

Copy them. In "library" they lie under names that you know. In "upload" they
go by a long number: look for them by date and size.


EVERYTHING

You need a Linux machine, and Immich in the version that made the database
dump or a newer one. The dump's name tells: -v2.5.2- is Immich 2.5.2.

With immich-usb-backup, which does all of the steps below but the first and
the last:

  sudo immich-usb-backup restore --from THIS_FOLDER --to MEDIA_LOCATION
       --docker immich_postgres --dry-run        (in one line; it only says
       what it would do. Without --dry-run it does it.)

By hand:

1. Install Immich, with the files in the newest zip in "config" put back.
   Do not start it: its database must be fresh.
2. Copy the folders "upload", "library" and "profile", each with its file
   .immich, to Immich's media location (UPLOAD_LOCATION in its .env). Make
   the folders "thumbs", "encoded-video" and "backups" beside them, and copy
   a file .immich into each.
3. Names that this disk could not hold have "~" and eight letters and digits
   near their end. OPEN-ME.html has a small program that gives the copies
   their names back.
4. Load the newest dump in "database". Its first lines (gunzip --stdout
   NAME.sql.gz | head -n 3) tell the kind; OPEN-ME.html has the commands.
5. Start Immich. Thumbnails and converted videos are made again: start these
   jobs in Immich's administration.

Try it on a spare machine before you need it.
"""


def readme() -> bytes:
    """The file's content: ASCII, with the line ends that old editors on Windows need."""
    return _TEXT.replace("\n", "\r\n").encode("ascii")
