"""The manifest as it lies on a disk: gzip, JSON lines, folders in order (docs/reference/manifest.md). All calls block.

What is read may come from anybody: each line is limited and judged on its own, the order rules out that anything comes
twice, and nothing but the way from the top to the present folder is kept in memory.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import IO, Any, NamedTuple, NoReturn

from immich_usb_backup.errors import ManifestUnusable
from immich_usb_backup.policy.manifest import MANIFEST_VERSION, Known, ManifestHeader
from immich_usb_backup.ports import Sink

FORMAT = "immich-usb-backup manifest"
COLUMNS = ("name", "size", "mtime_ns", "sha1", "verified", "stored", "link", "guessed")
ABOUT = (
    "Lists the files that a backup of an Immich server put beside this one: a line for each folder, then a line for each "
    "file in it, with the columns named here; a file lies under its own name, or under 'stored' where that is given."
)
LINE_LIMIT = 65_536
"""Bytes of a line, without its end. A path of ``PATH_LIMIT`` bytes fits, however much of it must be escaped."""

PATH_LIMIT = 4096
"""Bytes of a path on the server."""

TEXT_LIMIT = 4 * 2**30
"""Bytes of all lines together: some 30 million files. More is taken for an attempt to fill the server's disk."""

_LEVEL = 1
_LINES_AT_ONCE = 500
_GZIP = 16 + zlib.MAX_WBITS
_READ_BYTES = 65_536
_INFLATE_BYTES = 2**18
_MOST = 2**63 - 1
_LATEST_SECOND = 253_402_300_799
_LONGEST_TIME = 10**28
"""Nanoseconds; the largest time that a file system can hold is below it."""

_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


class FolderLine(NamedTuple):
    """A folder of a manifest: its paths on the server and on the disk, and how many folders are above it."""

    path: bytes
    stored_path: bytes
    depth: int


class Content(NamedTuple):
    """A folder with the files in it, sorted by name."""

    path: bytes
    stored_path: bytes
    files: Iterable[Known]


def write(header: ManifestHeader, files: int, folders: Iterable[Content], sink: Sink) -> None:
    """Write a whole manifest of so many ``files``. The folders come in their order, each before those in it.

    The same header and content give the same bytes. Raises what ``sink`` raises.
    """
    gzip = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP)
    for lines in _lines(header, files, folders):
        if data := gzip.compress(lines.encode("utf-8", "backslashreplace")):  # a lone surrogate becomes its JSON escape
            sink.write(data)
    sink.write(gzip.flush())


def _lines(header: ManifestHeader, files: int, folders: Iterable[Content]) -> Iterator[str]:
    yield _JSON.encode(_head(header, files)) + "\n"
    count = 0
    for folder in folders:
        count += 1
        yield _folder_line(folder)
        lines = map(_file_line, folder.files)
        while some := "".join(islice(lines, _LINES_AT_ONCE)):
            yield some
    yield _JSON.encode({"end": True, "files": files, "folders": count}) + "\n"


def _head(header: ManifestHeader, files: int) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "version": MANIFEST_VERSION,
        "about": ABOUT,
        "generation": header.generation,
        "server_id": header.server_id,
        "server": header.server_name.encode("utf-8", "backslashreplace").decode(),
        "run": header.run_id,
        "written": header.written.astimezone(UTC).isoformat(),
        "files": files,
        "columns": COLUMNS,
    }


def _folder_line(folder: Content) -> str:
    line = {"folder": _text(folder.path)}
    if folder.stored_path != folder.path:
        line["stored"] = _text(folder.stored_path)
    return _JSON.encode(line) + "\n"


def _file_line(known: Known) -> str:
    """Written by hand where it is an ordinary one: there may be a million. Columns at the end that are null are left out."""
    name, stored, size, mtime_ns, _, digest, proven, link, guessed = known
    start = f"[{_JSON.encode(_text(name))},{size},{mtime_ns}"
    rare: list[Any] = [
        _text(stored) if stored != name else None,
        None if link is None else _text(link),
        guessed or None,
    ]
    while rare and rare[-1] is None:
        rare.pop()
    if rare:
        return start + "," + _JSON.encode([digest.hex() or None, proven or None, *rare])[1:] + "\n"
    if proven:
        return f'{start},"{digest.hex()}",{proven}]\n' if digest else f"{start},null,{proven}]\n"
    return f'{start},"{digest.hex()}"]\n' if digest else f"{start}]\n"


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def read(stream: IO[bytes]) -> tuple[ManifestHeader, Iterator[FolderLine | Known]]:
    """The header, and each folder followed by the files in it; ``inode`` is 0. It is whole when the iterator ends.

    Both raise ``ManifestUnusable`` for anything that is not whole or not as it must be, and what ``stream`` raises.
    """
    chunks = _inflated(stream)
    lines = _split(chunks)
    header = _header(_parsed(next(lines, b"")), chunks)
    return header, _Body().entries(lines)


def _unusable(reason: str) -> NoReturn:
    raise ManifestUnusable(f"The manifest on the disk cannot be used: {reason}")


def _inflated(stream: IO[bytes]) -> Iterator[bytes]:
    """The text in pieces of bounded size. Ends only where the compressed data ends as it must."""
    gzip, total = zlib.decompressobj(_GZIP), 0
    while chunk := stream.read(_READ_BYTES):
        while chunk and not gzip.eof:
            data = _inflate(gzip, chunk)
            chunk = gzip.unconsumed_tail
            total += len(data)
            if total > TEXT_LIMIT:
                _unusable("it is too large")
            yield data
        if gzip.unused_data or (gzip.eof and chunk):
            _unusable("something comes after its end")
    if not gzip.eof:
        _unusable("it is cut off")


def _inflate(gzip: zlib._Decompress, chunk: bytes) -> bytes:
    try:
        return gzip.decompress(chunk, _INFLATE_BYTES)
    except zlib.error as error:
        raise ManifestUnusable(f"The manifest on the disk cannot be used: it is damaged ({error})") from error


def _split(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines, without their ends. Each must have one."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if len(line) > LINE_LIMIT:
                _unusable("a line is too long")
            yield line
        if len(rest) > LINE_LIMIT:
            _unusable("a line is too long")
    if rest:
        _unusable("its last line has no end")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a whole number")


_decode: Callable[[str], tuple[Any, int]] = json.JSONDecoder(
    parse_float=_no_number, parse_constant=_no_number
).raw_decode


def _parsed(line: bytes) -> Any:
    try:
        text = line.decode()
        value, end = _decode(text)
    except (ValueError, RecursionError) as error:
        raise ManifestUnusable(f"The manifest on the disk cannot be used: a line is not JSON ({error})") from error
    if end != len(text):
        _unusable("a line holds more than it should")
    return value


def _header(first: Any, chunks: Iterable[bytes]) -> ManifestHeader:
    """Judge the first line; ``chunks`` are what follows it."""
    if not isinstance(first, dict) or first.get("format") != FORMAT or type(first.get("version")) is not int:
        _unusable("it is something else")
    if first["version"] > MANIFEST_VERSION:
        for _ in chunks:
            pass  # only of a whole one it is said that a newer version wrote it
        message = f"The manifest on the disk was written by a newer version (format {first['version']})"
        raise ManifestUnusable(message, newer=True)
    if first["version"] < 1 or first.get("columns") != list(COLUMNS):
        _unusable("its columns are not known")
    texts = {key: _plain(first.get(key)) for key in ("generation", "server_id", "server", "run", "written")}
    return ManifestHeader(
        generation=texts["generation"],
        server_id=texts["server_id"],
        server_name=texts["server"],
        run_id=texts["run"],
        written=_moment(texts["written"]),
    )


def _plain(value: Any) -> str:
    if not isinstance(value, str):
        _unusable("its first line is not complete")
    try:
        value.encode()
    except UnicodeEncodeError:
        _unusable("its first line is not text")
    return value


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            _unusable("its time has no zone")
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ManifestUnusable("The manifest on the disk cannot be used: its time is none") from error


class _Level:
    """A folder on the way to the present one: what was last met in it."""

    __slots__ = ("empty", "folder", "last_folder", "line")

    def __init__(self, line: FolderLine) -> None:
        self.line = line
        self.last_folder = b""
        self.empty = True


class _Body:
    """The lines after the first, in the one order that they may have."""

    def __init__(self) -> None:
        self._way = [_Level(FolderLine(b"", b"", -1))]
        self._last_file = b""
        self._files = 0
        self._folders = 0

    def entries(self, lines: Iterator[bytes]) -> Iterator[FolderLine | Known]:
        for line in lines:
            value = _parsed(line)
            if type(value) is list:
                yield self._file(value)
            elif type(value) is not dict:
                _unusable("a line is neither a folder nor a file")
            elif "folder" in value:
                yield self._folder(value)
            else:
                self._end(value, lines)
                return
        _unusable("its end is missing")

    def _file(self, columns: list[Any]) -> Known:
        known = _known(columns)
        if known.name <= self._last_file:
            _unusable("its files are not in order")
        if len(self._way) == 1:
            _unusable("a file is in no folder")
        self._last_file = known.name
        self._way[-1].empty = False
        self._files += 1
        return known

    def _folder(self, value: dict[str, Any]) -> FolderLine:
        path = _bytes(value["folder"])
        stored_path = _bytes(value["stored"]) if "stored" in value else path
        if len(path) > PATH_LIMIT or path.startswith(b"/"):
            _unusable("a path is too long, or starts nowhere")
        above, _, name = path.rpartition(b"/")
        level = self._climb(above)
        stored_above, _, stored = stored_path.rpartition(b"/")
        if stored_above != level.line.stored_path or not (_is_name(name) and _is_name(stored)):
            _unusable("a folder is stored where it cannot be")
        if name <= level.last_folder:
            _unusable("its folders are not in order")
        if level.line.depth < 0 and stored != name:
            _unusable("a folder of the backup itself is stored under another name")
        level.last_folder, level.empty = name, False
        return self._enter(FolderLine(path, stored_path, level.line.depth + 1))

    def _climb(self, path: bytes) -> _Level:
        """Leave folders until ``path`` is reached."""
        while self._way[-1].line.path != path:
            self._leave()
        return self._way[-1]

    def _leave(self) -> None:
        if len(self._way) == 1:
            _unusable("a folder is in none that is known")
        if self._way.pop().empty:
            _unusable("a folder has nothing in it")

    def _enter(self, line: FolderLine) -> FolderLine:
        self._way.append(_Level(line))
        self._last_file = b""
        self._folders += 1
        return line

    def _end(self, value: dict[str, Any], lines: Iterator[bytes]) -> None:
        self._climb(b"")
        if value != {"end": True, "files": self._files, "folders": self._folders}:
            _unusable("its last line does not fit the others")
        if next(lines, None) is not None:
            _unusable("something comes after its end")


def _known(columns: list[Any]) -> Known:
    if not 3 <= len(columns) <= len(COLUMNS):
        _unusable("a file has not as many columns as it must")
    name, size, mtime_ns, sha1, proven, stored, link, guessed = columns + [None] * (len(COLUMNS) - len(columns))
    its_name = _name(name)
    if type(size) is not int or not 0 <= size <= _MOST:
        _unusable("a size is none")
    if type(mtime_ns) is not int or abs(mtime_ns) > _LONGEST_TIME:
        _unusable("a time is none")
    if proven is not None and (type(proven) is not int or not 0 < proven <= _LATEST_SECOND):
        _unusable("a time is none")
    if guessed is not None and guessed is not True:
        _unusable("a column is neither true nor null")
    digest = b"" if sha1 is None else _digest(sha1)
    if link is not None:
        return _link(its_name, size, mtime_ns, digest, proven, stored, link, guessed)
    its_stored = its_name if stored is None else _name(stored)
    return Known(its_name, its_stored, size, mtime_ns, 0, digest, proven or 0, None, guessed is True)


def _link(
    name: bytes, size: int, mtime_ns: int, digest: bytes, proven: Any, stored: Any, link: Any, guessed: Any
) -> Known:
    target = _bytes(link)
    if not target or b"\0" in target:
        _unusable("a link leads nowhere")
    its_stored = b"" if stored == "" else name if stored is None else _name(stored)
    return Known(name, its_stored, size, mtime_ns, 0, digest, proven or 0, target, guessed is True)


def _digest(value: Any) -> bytes:
    try:
        digest = bytes.fromhex(value) if type(value) is str and len(value) == 40 else b""
    except ValueError:
        digest = b""
    if len(digest) != 20:
        _unusable("a SHA-1 is none")
    return digest


def _bytes(value: Any) -> bytes:
    """The bytes that a text stands for: ``\\udc80`` to ``\\udcff`` are single ones."""
    if type(value) is not str:
        _unusable("a name is no text")
    try:
        return value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ManifestUnusable("The manifest on the disk cannot be used: a name is no text") from error


def _name(value: Any) -> bytes:
    name = _bytes(value)
    if b"/" in name or not _is_name(name):
        _unusable("a name cannot be one")
    return name


def _is_name(name: bytes) -> bool:
    """Whether it may be a component of a path; that it has no ``/`` is known."""
    return name not in (b"", b".", b"..") and b"\0" not in name
