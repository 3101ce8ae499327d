"""Files on a local folder or on S3, behaving alike: content by hash, drop-boxes of the sites, published releases.

A file appears whole or not at all, on both kinds of store; where two writers could meet, exactly one wins. Keys that
we write are legal on every store and system. Names that sites give are never trusted: they are only ever matched
against a listing, and shown through `safe_name`.

Every fault says the place, what is wrong and what to do next, and never a secret.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
import unicodedata
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BufferedReader, BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import (
        CompletedMultipartUploadTypeDef,
        CompletedPartTypeDef,
        CopySourceTypeDef,
        GetObjectOutputTypeDef,
    )

DEFAULT_LIMIT_BYTES = 50_000_000
"""The largest file that is read from an inbox unless the caller says otherwise."""

_CHUNK_BYTES = 1 << 20
_PART_BYTES = 8 << 20  # a larger file goes to S3 in parts of this size, one in memory at a time
_COPY_BYTES = 64 << 20  # a larger file is copied within S3 in parts of this size
_MOST_PARTS = 10_000  # of a file on S3
_RESERVED = re.compile(r"\.summative-[0-9a-f]{16}")  # our own half-written files: in no listing, refused in every key
_LONGEST_SEGMENT_BYTES = 255  # the limit of every file system in use
_LONGEST_KEY_BYTES = 900  # S3 allows 1,024, of which the area's prefix takes a part
_NOT_IN_NAMES = frozenset('\\:*?"<>|')  # Windows
_DEVICES = frozenset({"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))})
_OPEN_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY", "O_CLOEXEC"))
_LAST_MICROSECOND = 253_402_300_799_000_000  # the year 9999: some disks hold later dates, which Python can't
_ZIP_TAIL_BYTES = 22 + 65_535  # an end-of-central-directory record with the longest comment it may have

Published = Literal["added", "same"]

Content = bytes | Path
"""What is to be stored: bytes, or a whole file of the caller's, which is read piece by piece and left as it is."""


class FileFault(Exception):
    """Something about files that a person must see. The text: place, fault, next step."""


class KeyRefused(FileFault, ValueError):
    """A key that no store would take, or that leads out of its area."""


class FileMissing(FileFault):
    """There is no file of this name."""


class AreaUnavailable(FileFault):
    """The store can't be read or written: rights, space, network, keys, bucket."""


class ContentDamaged(FileFault):
    """A stored file no longer has the hash that it is named by."""


class ReleaseDiffers(FileFault):
    """A release of this name is published with other content."""


class FileTooLarge(FileFault):
    """A file is larger than the caller reads; nothing of it was read into memory."""

    def __init__(self, place: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(place, size_bytes, limit_bytes)
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"{self.args[0]}: {self.size_bytes:,} bytes, more than the {self.limit_bytes:,} that are read. "
            "Ask for it in smaller files."
        )


@dataclass(frozen=True)
class Stored:
    """A listed file. `is_file` is False for what can't be read as one: a link, a pipe, a store's folder marker."""

    key: str
    size: int
    modified_at: datetime
    is_file: bool = True


StoredList = list[Stored]


def parse_key(text: str) -> str:
    """The text, if it may name a file on every store: steps parted by "/", no way up, nothing unprintable.

    Raises KeyRefused.
    """
    if fault := _find_key_fault(text):
        raise KeyRefused(f'"{_show(text)}": {fault}. Give the file another name.')
    return text


def _find_key_fault(key: str) -> str:
    if not key:
        return "a file needs a name"
    if len(key.encode("utf-8", "surrogatepass")) > _LONGEST_KEY_BYTES:
        return f"longer than {_LONGEST_KEY_BYTES} bytes"
    if any(_is_unprintable(character) for character in key):
        return "has characters that can't be shown"
    if not unicodedata.is_normalized("NFC", key):
        return "has accents written apart from their letters, which some systems join"
    if found := _NOT_IN_NAMES.intersection(key):
        return f"has {' '.join(sorted(found))}, which some systems give a meaning"
    for step in key.split("/"):
        if step in {"", ".", ".."}:
            return f'has the step "{step}", which leads elsewhere'
        if step != step.strip(" ") or step.endswith("."):
            return "has a name that begins or ends with a space, or ends with a full stop"
        if step.partition(".")[0].upper() in _DEVICES:
            return f'has the name "{step}", a device on Windows'
        if _RESERVED.fullmatch(step):
            return "has a name that is kept for files being written"
        if len(step.encode()) > _LONGEST_SEGMENT_BYTES:
            return f"has a name longer than {_LONGEST_SEGMENT_BYTES} bytes"
    return ""


def _is_unprintable(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}


def safe_name(name: str, limit: int = 100) -> str:
    """A name from outside, fit to be shown, written to a sheet or made part of a key; not unique, and no way back.

    Separators, control and direction characters become "_", and so does a beginning that a shell or a spreadsheet
    would act on. Names longer than `limit` characters lose their middle and keep their ending.
    """
    text = unicodedata.normalize("NFC", name)
    text = "".join("_" if _is_unprintable(c) or c == "/" or c in _NOT_IN_NAMES else c for c in text).strip(" .")
    if not text:
        return "unnamed"
    if text[0] in "-=+@~" or text.partition(".")[0].upper() in _DEVICES:
        text = f"_{text.lstrip('-=+@~')}"
    while len(text) > limit or len(text.encode()) > _LONGEST_SEGMENT_BYTES - 30:
        keep = min(limit, len(text)) - 2
        text = unicodedata.normalize("NFC", f"{text[: keep - keep // 3]}_{text[len(text) - keep // 3 :]}")
    return text


def _show(key: str) -> str:
    """A key inside a message: one line, nothing that steers a terminal, at most 160 characters."""
    text = "".join("_" if _is_unprintable(c) else c for c in key)
    return text if len(text) <= 160 else f"{text[:100]}...{text[-57:]}"


class FileArea(Protocol):
    """Where files lie. `place` names it in messages, without secrets."""

    @property
    def place(self) -> str: ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a whole file. With `if_absent`, False when there is one already: one of many writers gets True.

        Raises KeyRefused, AreaUnavailable.
        """

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        """Raises FileMissing, FileTooLarge (before reading), AreaUnavailable."""

    def read_chunks(self, key: str) -> Iterator[bytes]:
        """The file piece by piece, for what must not be held in memory. Raises FileMissing, AreaUnavailable."""

    def fetch(self, key: str, path: Path) -> str:
        """Copy a file piece by piece to a local path, where it appears whole or not at all; the SHA-256 of it.

        Raises FileMissing, AreaUnavailable.
        """

    def read_end(self, key: str, n_bytes: int) -> bytes:
        """At most the last `n_bytes`. Raises FileMissing, AreaUnavailable."""

    def describe(self, key: str) -> Stored:
        """Raises FileMissing, AreaUnavailable."""

    def has(self, key: str) -> bool: ...

    def list(self, prefix: str, *, everything: bool = False) -> StoredList:
        """Files whose key begins with `prefix`, by key. With `everything` also what is no ordinary file."""

    def delete(self, key: str) -> None:
        """No fault when there is none."""

    def erase(self, key: str) -> None:
        """As `delete`, with older versions that the store may keep."""

    def delete_if(self, key: str, sha256: str) -> bool:
        """Delete the file if this is still its content; False when it was replaced or is gone."""

    def move(self, key: str, new_key: str) -> None:
        """Without reading it into memory. Raises FileMissing, KeyRefused, AreaUnavailable."""

    def below(self, prefix: str) -> FileArea:
        """The part of this area under `prefix`, as an area."""

    def make_folder(self, prefix: str) -> None:
        """Show an empty folder to people, where the store knows folders."""

    def hold_scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A local folder for what is to be published, gone when the context ends; from a folder area's it can be linked
        into place. What a killed run leaves of it, `remove_leftovers` deletes."""

    def publish(self, files: Mapping[str, Content], final_prefix: str, last: str) -> Published: ...

    def point(self, releases_prefix: str, release: str, last: str) -> None: ...


# ---------------------------------------------------------------- a local folder


class FolderArea:
    """Files in a local folder, which is made when first written to. Links in it are not followed out of it.

    What was written survives a power cut; without `is_synced` it survives a killed process only, and is written faster.
    """

    def __init__(self, path: str | os.PathLike[str], *, is_synced: bool = True) -> None:
        self._root, self._is_synced = Path(path).absolute(), is_synced

    @property
    def place(self) -> str:
        return str(self._root)

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        path = self._find_path(parse_key(key))
        with self._faults(key):
            if if_absent and os.path.lexists(path):
                return False
            self._make_parent(path, key)
            temporary = path.parent / _name_temporary()
            try:
                self._write(temporary, data)
                if not if_absent:
                    temporary.replace(path)
                elif not _claim(temporary, path):
                    return False
            finally:
                temporary.unlink(missing_ok=True)
            self._sync(path.parent)
        return True

    def _write(self, path: Path, data: Content) -> None:
        """A caller's file that is on the same disk is linked where that can't be told from a copy."""
        if isinstance(data, Path) and _link(data, path):
            self._sync(path)
            return
        with path.open("xb") as file:
            for chunk in _read_content(data):
                file.write(chunk)
            if self._is_synced:
                file.flush()
                os.fsync(file.fileno())

    def _sync(self, path: Path) -> None:
        if self._is_synced:
            _sync_path(path)

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        with self._open(key) as (file, status):
            if limit_bytes is None:
                return file.read()
            data = file.read(limit_bytes + 1) if status.st_size <= limit_bytes else b""
            size = max(status.st_size, len(data))  # it may have grown since
            if size > limit_bytes:
                raise FileTooLarge(self._show(key), size, limit_bytes)
            return data

    def read_chunks(self, key: str) -> Iterator[bytes]:
        with self._open(key) as (file, _):
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk

    def fetch(self, key: str, path: Path) -> str:
        return _fetch(self, key, path)

    def read_end(self, key: str, n_bytes: int) -> bytes:
        with self._open(key) as (file, status):
            file.seek(max(status.st_size - n_bytes, 0))
            return file.read(n_bytes)

    def describe(self, key: str) -> Stored:
        with self._open(key) as (_, status):
            return _describe(key, status)

    def has(self, key: str) -> bool:
        path = self._find_path(key)
        with self._faults(key):
            try:
                return self._is_inside(path.parent) and stat.S_ISREG(path.lstat().st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False

    def list(self, prefix: str, *, everything: bool = False) -> StoredList:
        base = prefix.rpartition("/")[0]
        folders = [(base, self._find_path(base) if base else self._root)]
        found: StoredList = []
        with self._faults(prefix):
            if not self._is_inside(folders[0][1]):
                return found
            while folders:
                folder_key, folder = folders.pop()
                for entry in _scan(folder):
                    key = f"{folder_key}/{entry.name}" if folder_key else entry.name
                    if _RESERVED.fullmatch(entry.name) or not (key.startswith(prefix) or prefix.startswith(f"{key}/")):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((key, Path(entry.path)))
                    elif everything or entry.is_file(follow_symlinks=False):
                        with contextlib.suppress(FileNotFoundError):  # taken away meanwhile
                            found.append(_describe(key, entry.stat(follow_symlinks=False)))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        path = self._find_path(key)
        with self._faults(key), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if self._is_inside(path.parent):
                path.unlink()
                self._sync(path.parent)

    def erase(self, key: str) -> None:
        self.delete(key)

    def delete_if(self, key: str, sha256: str) -> bool:
        """Hashes the file and looks, right before unlinking, whether its name still stands for what was hashed."""
        path = self._find_path(key)
        try:
            with self._open(key) as (file, before):
                is_same = hashlib.file_digest(file, "sha256").hexdigest() == sha256
                after = os.fstat(file.fileno())
            with self._faults(key):
                if not is_same or _identity(before) != _identity(after) or _identity(after) != _identity(path.lstat()):
                    return False
                path.unlink()
                self._sync(path.parent)
        except (FileMissing, FileNotFoundError):
            return False
        return True

    def move(self, key: str, new_key: str) -> None:
        path, new_path = self._find_path(key), self._find_path(parse_key(new_key))
        self.describe(key)
        with self._faults(key):
            self._make_parent(new_path, new_key)
            path.replace(new_path)
            self._sync(new_path.parent)
            self._sync(path.parent)

    def below(self, prefix: str) -> FolderArea:
        return FolderArea(self._find_path(parse_key(prefix)), is_synced=self._is_synced)

    def make_folder(self, prefix: str) -> None:
        path = self._find_path(parse_key(prefix))
        with self._faults(prefix):
            self._make_parent(path / "any", prefix)

    @contextlib.contextmanager
    def hold_scratch(self) -> Iterator[Path]:
        folder = self._root / _name_temporary()
        with self._faults(""):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def publish(self, files: Mapping[str, Content], final_prefix: str, last: str) -> Published:
        """A folder beside the final one, written and synced, then renamed: one step, whatever happens meanwhile."""
        final = self._find_path(final_prefix)
        with self._faults(final_prefix):
            self._make_parent(final, final_prefix)
            if final.is_dir() and any(_scan(final)):
                return _compare_release(self, files, final_prefix)
            temporary = final.parent / _name_temporary()
            try:
                for name, data in files.items():
                    path = temporary.joinpath(*name.split("/"))
                    path.parent.mkdir(parents=True, exist_ok=True)
                    self._write(path, data)
                for folder, _, _ in os.walk(temporary, topdown=False):
                    self._sync(Path(folder))
                try:
                    temporary.rename(final)
                except OSError:
                    if not (final.is_dir() and any(_scan(final))):
                        raise
                    return _compare_release(self, files, final_prefix)  # another run was first
                self._sync(final.parent)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return "added"

    def point(self, releases_prefix: str, release: str, last: str) -> None:
        """A relative link `latest`, swapped in one step; a copy where links can't be had (some Windows machines)."""
        folder = self._find_path(releases_prefix)
        latest, temporary = folder / "latest", folder / _name_temporary()
        with self._faults(f"{releases_prefix}/latest"):
            self._make_parent(latest, f"{releases_prefix}/latest")
            if latest.is_symlink() and str(latest.readlink()) == release:
                return
            try:
                try:
                    temporary.symlink_to(release, target_is_directory=True)
                except (OSError, NotImplementedError):
                    shutil.copytree(folder / release, temporary)
                if latest.is_dir() and not latest.is_symlink():
                    self._set_copy_aside(latest, last)
                if temporary.is_symlink():
                    temporary.replace(latest)
                else:
                    temporary.rename(latest)
                self._sync(folder)
            finally:
                if temporary.is_symlink():
                    temporary.unlink()
                shutil.rmtree(temporary, ignore_errors=True)

    def remove_leftovers(self, older_than_seconds: float = 86_400) -> int:
        """Delete what runs that were killed left half-written, once nobody can be writing it any more; how many."""
        limit, n_removed = time.time() - older_than_seconds, 0
        with self._faults(""):
            for folder, folders, names in os.walk(self._root):
                for name in [name for name in [*folders, *names] if _RESERVED.fullmatch(name)]:
                    path = Path(folder, name)
                    with contextlib.suppress(FileNotFoundError):
                        if path.lstat().st_mtime > limit:
                            continue
                        if path.is_dir() and not path.is_symlink():
                            shutil.rmtree(path)
                        else:
                            path.unlink()
                        n_removed += 1
                folders[:] = [name for name in folders if not _RESERVED.fullmatch(name)]
        return n_removed

    def _set_copy_aside(self, latest: Path, last: str) -> None:
        if not (latest / last).is_file():
            raise FileFault(f"{latest}: a folder that no release was copied to. Move it away; the name is needed.")
        aside = latest.parent / _name_temporary()
        latest.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _find_path(self, key: str) -> Path:
        """Also for names found in a listing, which may be odd but never lead elsewhere."""
        steps = key.split("/")
        is_bad = any(step in {"", ".", ".."} or "\0" in step for step in steps)
        if is_bad or (os.name == "nt" and not _NOT_IN_NAMES.isdisjoint(key)):
            raise KeyRefused(f'{self.place}: "{_show(key)}" names no file here. Use the name as it was listed.')
        return self._root.joinpath(*steps)

    def _is_inside(self, folder: Path) -> bool:
        """False where a link in the area (a site may have put one there) leads out of it."""
        root, place = self._real_root, os.path.realpath(folder)
        return place == root or place.startswith(f"{root.rstrip(os.sep)}{os.sep}")

    @cached_property
    def _real_root(self) -> str:
        return os.path.realpath(self._root)

    def _make_parent(self, path: Path, key: str) -> None:
        if not self._is_inside(path.parent):
            text = f"{self._show(key)}: lies behind a link that leads out of the folder. Remove the link."
            raise AreaUnavailable(text)
        path.parent.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _open(self, key: str) -> Iterator[tuple[BufferedReader, os.stat_result]]:
        """An ordinary file only: a link is not followed, a pipe is not waited for."""
        path = self._find_path(key)
        with self._faults(key):
            try:
                if not self._is_inside(path.parent) or not stat.S_ISREG(path.lstat().st_mode):
                    raise self._missing(key)
                descriptor = os.open(path, _OPEN_FLAGS)
            except (FileNotFoundError, NotADirectoryError):
                raise self._missing(key) from None
            with os.fdopen(descriptor, "rb") as file:
                yield file, os.fstat(descriptor)

    def _missing(self, key: str) -> FileMissing:
        return FileMissing(f"{self._show(key)}: there is no such file. Look whether it was moved or deleted.")

    def _show(self, key: str) -> str:
        return f"{self.place}{os.sep}{_show(key)}" if key else self.place

    @contextlib.contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise AreaUnavailable(f"{self._show(key)}: {_explain(fault)}") from fault


def _explain(fault: OSError) -> str:
    if fault.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return "no space is left (disk, quota or file size limit). Free some and run again; nothing was half-written."
    if fault.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "permission denied. Give the account that runs Summative the right to read and write there."
    if fault.errno in {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}:
        return "a file lies where a folder is needed, or a folder where a file is. Rename what is in the way."
    if fault.errno == errno.EOPNOTSUPP:
        return "this file system has no hard links, so two writers could not be told apart. Use another disk."
    reason = os.strerror(fault.errno) if fault.errno else type(fault).__name__
    return f"{reason} ({errno.errorcode.get(fault.errno or 0, 'unknown')}). Look at the disk or the network drive."


def _name_temporary() -> str:
    return f".summative-{secrets.token_hex(8)}"


def _scan(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except (FileNotFoundError, NotADirectoryError):
        return


def _describe(key: str, status: os.stat_result) -> Stored:
    microseconds = min(max(status.st_mtime_ns // 1000, 0), _LAST_MICROSECOND)
    modified_at = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)
    return Stored(key, status.st_size, modified_at, stat.S_ISREG(status.st_mode))


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _claim(temporary: Path, path: Path) -> bool:
    """Give the file its name if nobody has it yet. A link or, on Windows, a rename refuses to replace."""
    try:
        if os.name == "nt":
            temporary.rename(path)
        else:
            path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError as fault:
        if fault.errno in {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}:
            raise OSError(errno.EOPNOTSUPP, "no hard links") from fault
        raise
    return True


def _link(source: Path, path: Path) -> bool:
    """Give a file of the caller's the name `path` too; False, and nothing done, where it must be copied instead.

    Only where nobody could tell it from a copy: an ordinary file on the same disk, that has no other name yet, with
    the owner, group, rights and labels that a file written here gets. No file of an area is ever written to in place,
    so its first name is safe from us, and the caller writes no more to what it has handed over.
    """
    if os.name == "nt":  # has no way to sync a file that is open for reading
        return False
    try:
        status = source.lstat()
        is_alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
        if not is_alone or status.st_dev != path.parent.lstat().st_dev:
            return False
        path.touch(exist_ok=False)
        try:
            is_alike = _list_rights(source) == _list_rights(path)
        finally:
            path.unlink()
        if is_alike:
            path.hardlink_to(source)
    except OSError:  # the copy will say what is wrong, if anything is
        return False
    return is_alike


def _list_rights(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    labels = {}
    if sys.platform == "linux":  # access lists are among them
        labels = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return status.st_mode, status.st_uid, status.st_gid, labels


def _sync_path(path: Path) -> None:
    """Make a rename, in the folder, or a linked file last through a power cut. Windows has no such call for folders
    and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as fault:
        if fault.errno not in {errno.EINVAL, errno.ENOTSUP}:  # network drives that sync by themselves
            raise
    finally:
        os.close(descriptor)


# ---------------------------------------------------------------- S3

_KEYS_REFUSED = "the store does not accept the keys. Correct the access key and the secret key in the settings."
_FULL = "the store has no space left. Free some and run again; nothing was half-written."
_BUSY = "the store is out of order or overloaded. Run again later."
_REGION = "the bucket lies in another region. Correct the region in the settings."
_S3_FAULTS = {
    "NoSuchBucket": "there is no such bucket. Create it, or correct its name in the settings.",
    "InvalidBucketName": "this can't be a bucket's name. Correct it in the settings.",
    "InvalidAccessKeyId": _KEYS_REFUSED,
    "SignatureDoesNotMatch": _KEYS_REFUSED,
    "InvalidToken": _KEYS_REFUSED,
    "ExpiredToken": "the session token has expired. Renew the sign-in.",
    "AccessDenied": "access denied. Check the keys, and that they may list, read, write and delete in this bucket.",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than 15 minutes. Set it.",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "QuotaExceeded": _FULL,
    "InsufficientCapacity": _FULL,
    "XMinioStorageFull": _FULL,
    "507": _FULL,
    "SlowDown": _BUSY,
    "ServiceUnavailable": _BUSY,
    "InternalError": _BUSY,
    "BadDigest": "the file was altered on its way to the store. Run again; look at the network.",
}
_S3_FAULTS |= {"403": _S3_FAULTS["AccessDenied"], "500": _BUSY, "502": _BUSY, "503": _BUSY, "504": _BUSY}
_MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
_CONDITION_CODES = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})


def connect_s3(
    *,
    endpoint_url: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    region: str | None = None,
    timeout_seconds: float = 20.0,
    attempts: int = 4,
) -> S3Client:
    """A client for S3Area. Without keys boto3 looks for them where it always does (environment, profile, machine role).

    A request ends after `attempts` x `timeout_seconds` and the waits between them (about 7 s) at the latest. Uploads
    carry an MD5 that the store checks; the newer checksums, which many S3-compatible stores refuse, are left out.
    Raises AreaUnavailable.
    """
    # Imported here and in `_faults`: it takes 0.4 s, which no command that works on a folder should pay.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    if (access_key is None) != (secret_key is None):
        raise AreaUnavailable("S3: only one of access key and secret key is set. Set both in the settings, or neither.")
    config = Config(
        connect_timeout=min(timeout_seconds, 5.0),
        read_timeout=timeout_seconds,
        retries={"mode": "standard", "total_max_attempts": attempts},
        max_pool_connections=32,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": "path" if endpoint_url else "auto"},
    )
    try:
        return boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint_url,
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            region_name=region or ("us-east-1" if endpoint_url else None),
            config=config,
        )
    except (BotoCoreError, ValueError) as fault:
        text = f"S3: {type(fault).__name__}. Check endpoint, region and profile in the settings."
        raise AreaUnavailable(text) from None


class S3Area:
    """Files in a bucket under a prefix ('' for all of it). `client` comes from `connect_s3`."""

    def __init__(self, bucket: str, prefix: str, client: S3Client) -> None:
        self._bucket = bucket
        self._prefix = f"{parse_key(prefix.strip('/'))}/" if prefix.strip("/") else ""
        self._client = client
        self._is_bucket_seen = False

    @property
    def place(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        arguments: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        # Told from another's file by a mark: the answer to a put that succeeded may get lost, and its retry is refused.
        mark = secrets.token_hex(16)
        with self._faults(key):
            try:
                self._client.put_object(
                    Bucket=self._bucket,
                    Key=self._key(parse_key(key)),
                    Body=data,
                    ContentMD5=_compute_md5(data),
                    ContentType="application/octet-stream",
                    Metadata={"put": mark},
                    **arguments,
                )
            except self._client.exceptions.ClientError as fault:
                if not if_absent or fault.response["Error"]["Code"] not in _CONDITION_CODES:
                    raise
                return self._is_ours(fault, key, mark)
        return True

    def _is_ours(self, fault: ClientError, key: str, mark: str) -> bool:
        """Whether what was refused when it was repeated had succeeded before."""
        if not fault.response["ResponseMetadata"].get("RetryAttempts") or not self.has(key):
            return False
        head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
        return head["Metadata"].get("put") == mark

    def _put_for_release(self, key: str, data: Content, *, if_absent: bool, unless: str) -> bool:
        """As `put`, of any size. False also when the file `unless` has come meanwhile: sending may take an hour.

        Some stores look first and write then when a large file is to be put `if_absent`: the first of two that end
        within milliseconds may be replaced by the second.
        """
        if not isinstance(data, Path) or _measure(data) <= _PART_BYTES:
            return self.put(key, b"".join(_read_content(data)), if_absent=if_absent)
        if if_absent and self.has(key):
            return False  # before all of it is sent
        arguments: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        about: dict[str, Any] = {"Bucket": self._bucket, "Key": self._key(parse_key(key))}
        mark = secrets.token_hex(16)
        with self._faults(key):
            sending = self._client.create_multipart_upload(
                **about, ContentType="application/octet-stream", Metadata={"put": mark}
            )["UploadId"]
            parts = self._send_parts(about, sending, data)
            if self.has(unless):
                self._abort(about, sending)
                return False
            try:
                self._client.complete_multipart_upload(**about, **arguments, UploadId=sending, MultipartUpload=parts)
            except self._client.exceptions.ClientError as fault:
                code = fault.response["Error"]["Code"]
                if code not in _CONDITION_CODES | {"NoSuchUpload"}:
                    raise
                if self._is_ours(fault, key, mark):
                    return True
                if code == "NoSuchUpload" or not if_absent:
                    raise
                self._abort(about, sending)
                return False
        return True

    def _send_parts(self, about: dict[str, Any], sending: str, data: Content) -> CompletedMultipartUploadTypeDef:
        """The list of the parts, by which the file is completed: until then nobody sees anything of it.

        Given up at once where a part can't be sent. What got no answer on being completed is not: the store may still
        be at it, and `remove_leftovers` sees to what is left.
        """
        parts: list[CompletedPartTypeDef] = []
        part_bytes = max(_PART_BYTES, -(-_measure(data) // _MOST_PARTS))
        try:
            for number, part in enumerate(_read_content(data, part_bytes), start=1):
                answer = self._client.upload_part(
                    **about, UploadId=sending, PartNumber=number, Body=part, ContentMD5=_compute_md5(part)
                )
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        except BaseException:
            self._abort(about, sending)
            raise
        return {"Parts": parts}

    def _abort(self, about: dict[str, Any], sending: str) -> None:
        from botocore.exceptions import BotoCoreError

        with contextlib.suppress(self._client.exceptions.ClientError, BotoCoreError):
            self._client.abort_multipart_upload(**about, UploadId=sending)

    def remove_leftovers(self, older_than_seconds: float = 86_400) -> int:
        """Give up what killed runs began to send in parts, once nobody can be sending it any more; how many.

        It shows nowhere, but takes space. Where the account may not list it, it is left to a rule of the bucket.
        """
        limit, n_removed = datetime.now(UTC) - timedelta(seconds=older_than_seconds), 0
        with self._faults(""), contextlib.suppress(self._client.exceptions.ClientError):
            found = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix)
            for begun in found.get("Uploads", []):
                if begun["Initiated"] < limit:
                    self._abort({"Bucket": self._bucket, "Key": begun["Key"]}, begun["UploadId"])
                    n_removed += 1
        return n_removed

    def get(self, key: str, *, limit_bytes: int | None = None) -> bytes:
        with self._open(key) as answer:
            size = answer["ContentLength"]
            if limit_bytes is not None and size > limit_bytes:
                raise FileTooLarge(self._show(key), size, limit_bytes)
            return answer["Body"].read()

    def read_chunks(self, key: str) -> Iterator[bytes]:
        with self._open(key) as answer:
            yield from answer["Body"].iter_chunks(_CHUNK_BYTES)

    def fetch(self, key: str, path: Path) -> str:
        return _fetch(self, key, path)

    def read_end(self, key: str, n_bytes: int) -> bytes:
        if n_bytes <= 0 or self.describe(key).size == 0:  # an empty object has no last bytes to ask for
            return b""
        with self._open(key, Range=f"bytes=-{n_bytes}") as answer:
            return answer["Body"].read()

    def describe(self, key: str) -> Stored:
        with self._faults(key):
            try:
                head = self._client.head_object(Bucket=self._bucket, Key=self._key(key))
            except self._client.exceptions.ClientError as fault:
                if fault.response["Error"]["Code"] in _MISSING_CODES:
                    self._require_bucket()
                raise
        self._is_bucket_seen = True
        return Stored(key, head["ContentLength"], head["LastModified"], not key.endswith("/"))

    def has(self, key: str) -> bool:
        try:
            return self.describe(key).is_file
        except FileMissing:
            return False

    def list(self, prefix: str, *, everything: bool = False) -> StoredList:
        found: StoredList = []
        with self._faults(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{prefix}"):
                for entry in page.get("Contents", []):
                    key = entry["Key"][len(self._prefix) :]
                    if everything or not key.endswith("/"):
                        found.append(Stored(key, entry["Size"], entry["LastModified"], not key.endswith("/")))
        return sorted(found, key=lambda stored: stored.key)

    def delete(self, key: str) -> None:
        with self._faults(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._key(key))

    def erase(self, key: str) -> None:
        """Every version that the bucket keeps of it, where it keeps versions; listing them comes first, so that what
        cannot be erased whole is left whole."""
        name = self._key(key)
        with self._faults(key):
            pages = self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=name)
            versions = [
                entry["VersionId"]
                for page in pages
                for entry in [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
                if entry["Key"] == name
            ]
            for version in versions:
                self._client.delete_object(Bucket=self._bucket, Key=name, VersionId=version)
            if not versions:
                self._client.delete_object(Bucket=self._bucket, Key=name)

    def delete_if(self, key: str, sha256: str) -> bool:
        """Conditional on the entity tag of what was hashed."""
        digest = hashlib.sha256()
        try:
            with self._open(key) as answer:
                for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
                    digest.update(chunk)
        except FileMissing:
            return False
        if digest.hexdigest() != sha256:
            return False
        with self._faults(key):
            try:
                self._client.delete_object(Bucket=self._bucket, Key=self._key(key), IfMatch=answer["ETag"])
            except self._client.exceptions.ClientError as fault:
                if fault.response["Error"]["Code"] in _CONDITION_CODES | _MISSING_CODES:
                    return False
                raise
        return True

    def move(self, key: str, new_key: str) -> None:
        parse_key(new_key)
        self.describe(key)
        with self._faults(key):
            source = self._key(key)
            self._client.copy({"Bucket": self._bucket, "Key": source}, self._bucket, self._key(new_key))
            self._client.delete_object(Bucket=self._bucket, Key=source)

    def below(self, prefix: str) -> S3Area:
        return S3Area(self._bucket, f"{self._prefix}{parse_key(prefix)}", self._client)

    def make_folder(self, prefix: str) -> None:
        """S3 knows no folders; people see one as soon as something lies in it."""
        parse_key(prefix)

    @contextlib.contextmanager
    def hold_scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)

    def publish(self, files: Mapping[str, Content], final_prefix: str, last: str) -> Published:
        """Everything else first, the manifest last and only if there is none: it makes the release."""
        manifest = f"{final_prefix}/{last}"
        if self.has(manifest):
            return _compare_release(self, files, final_prefix)
        self.below(final_prefix.rpartition("/")[0] or final_prefix).remove_leftovers()
        for stored in self.list(f"{final_prefix}/"):  # a run that was killed got so far
            if stored.key.removeprefix(f"{final_prefix}/") not in files:
                self.delete(stored.key)
        for name in sorted(files.keys() - {last}):
            key, data = f"{final_prefix}/{name}", files[name]
            if self._put_for_release(key, data, if_absent=True, unless=manifest):
                continue
            if self.has(manifest):  # another run was first
                return _compare_release(self, files, final_prefix)
            if not _has_content(self, self.describe(key), data):
                self._put_for_release(key, data, if_absent=False, unless=manifest)
        is_first = self.put(manifest, b"".join(_read_content(files[last])), if_absent=True)
        _compare_release(self, files, final_prefix)
        return "added" if is_first else "same"

    def point(self, releases_prefix: str, release: str, last: str) -> None:
        """A copy, during which `latest` has no manifest and so counts as absent."""
        source, target = f"{releases_prefix}/{release}/", f"{releases_prefix}/latest/"
        sizes = {stored.key.removeprefix(source): stored.size for stored in self.list(source)}
        manifest = self.get(f"{source}{last}")
        if self.has(f"{target}{last}") and self.get(f"{target}{last}") == manifest:
            return
        self.delete(f"{target}{last}")
        for stored in self.list(target):
            if stored.key.removeprefix(target) not in sizes:
                self.delete(stored.key)
        with self._faults(f"{releases_prefix}/latest"):
            for name in sorted(sizes, key=lambda name: (name == last, name)):
                self._copy(self._key(f"{source}{name}"), self._key(f"{target}{name}"), sizes[name])

    def _copy(self, source: str, target: str, n_bytes: int) -> None:
        """Within the store; in parts what would take longer than one answer may, or more than S3 copies in one."""
        from boto3.s3.transfer import TransferConfig

        origin: CopySourceTypeDef = {"Bucket": self._bucket, "Key": source}
        if n_bytes <= _COPY_BYTES:
            self._client.copy_object(Bucket=self._bucket, Key=target, CopySource=origin)
        else:
            config = TransferConfig(multipart_threshold=_COPY_BYTES, multipart_chunksize=_COPY_BYTES)
            self._client.copy(origin, self._bucket, target, Config=config)

    def _key(self, key: str) -> str:
        if not key:
            raise KeyRefused(f"{self.place}: a file needs a name. Use the name as it was listed.")
        return f"{self._prefix}{key}"

    def _require_bucket(self) -> None:
        """A question about one file gets the same answer from a missing bucket as from a missing file."""
        if self._is_bucket_seen:
            return
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except self._client.exceptions.ClientError as fault:
            if fault.response["Error"]["Code"] in {*_MISSING_CODES, "NoSuchBucket"}:
                raise AreaUnavailable(f"{self.place}: {_S3_FAULTS['NoSuchBucket']}") from None
            raise
        self._is_bucket_seen = True

    @contextlib.contextmanager
    def _open(self, key: str, **arguments: str) -> Iterator[GetObjectOutputTypeDef]:
        with self._faults(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key(key), **arguments)  # type: ignore[arg-type]  # Range
            self._is_bucket_seen = True
            with contextlib.closing(answer["Body"]):
                yield answer

    def _show(self, key: str) -> str:
        return f"{self.place}/{_show(key)}"

    @contextlib.contextmanager
    def _faults(self, key: str) -> Iterator[None]:
        """The client's own texts are left out: they may quote the request."""
        from botocore import exceptions as s3

        try:
            yield
        except self._client.exceptions.ClientError as fault:
            code = fault.response["Error"]["Code"]
            if code in _MISSING_CODES:
                text = f"{self._show(key)}: there is no such file. Look whether it was moved or deleted."
                raise FileMissing(text) from None
            status = fault.response["ResponseMetadata"].get("HTTPStatusCode")
            explained = _S3_FAULTS.get(code) or _S3_FAULTS.get(str(status))
            explained = explained or f"the store answered {_show(code)}. Look the code up in its manual."
            raise AreaUnavailable(f"{self._show(key)}: {explained}") from None
        except (s3.NoCredentialsError, s3.PartialCredentialsError):
            text = f"{self.place}: no keys were found. Set access key and secret key in the settings."
            raise AreaUnavailable(text) from None
        except (s3.ConnectionError, s3.HTTPClientError) as fault:
            host = urlsplit(self._client.meta.endpoint_url).netloc.rpartition("@")[2]
            text = f"{self._show(key)}: no answer from {host} ({type(fault).__name__}). Check network and endpoint."
            raise AreaUnavailable(text) from None
        except s3.BotoCoreError as fault:
            text = f"{self._show(key)}: {type(fault).__name__}. Check bucket, endpoint and region in the settings."
            raise AreaUnavailable(text) from None


def open_area(
    url_or_path: str | os.PathLike[str],
    *,
    endpoint_url: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    region: str | None = None,
) -> FileArea:
    """A folder by its path or file:// URL; a bucket by s3://bucket or s3://bucket/prefix, with keys given apart.

    Raises AreaUnavailable for anything else, without repeating what may hold a secret.
    """
    text = os.fspath(url_or_path)
    parts = urlsplit(text)
    if "://" not in text:
        return FolderArea(Path(text).expanduser())
    if parts.scheme == "file" and parts.netloc in {"", "localhost"}:
        path = unquote(parts.path)
        return FolderArea(path.lstrip("/") if sys.platform == "win32" else path)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise AreaUnavailable("files: the address holds more than bucket and prefix. Keys have settings of their own.")
    if parts.scheme != "s3" or not parts.netloc:
        text = f'files: "{_show(parts.scheme)}://" is no place for files. Give a folder or s3://bucket/prefix.'
        raise AreaUnavailable(text)
    client = connect_s3(endpoint_url=endpoint_url, access_key=access_key, secret_key=secret_key, region=region)
    return S3Area(parts.netloc, parts.path, client)


# ---------------------------------------------------------------- content by hash


class ContentStore:
    """Files named by the SHA-256 of what is in them, never changed: sha256/ab/abcd..."""

    def __init__(self, area: FileArea) -> None:
        self._area = area

    def put(self, data: bytes) -> str:
        """Store the bytes; their SHA-256 in lower-case hexadecimal. Writing again mends a damaged copy."""
        sha256 = hashlib.sha256(data).hexdigest()
        key = self._key(sha256)
        if not self._area.put(key, data, if_absent=True) and self._compute_sha256(key) != sha256:
            self._area.put(key, data)
        return sha256

    def get(self, sha256: str) -> bytes:
        """Raises FileMissing, ContentDamaged, KeyRefused."""
        key = self._key(sha256)
        data = self._area.get(key)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ContentDamaged(
                f"{self._area.place}/{key}: no longer has the hash that it is named by. "
                "Restore it from a backup, or have the file sent again."
            )
        return data

    def has(self, sha256: str) -> bool:
        return self._area.has(self._key(sha256))

    def erase(self, sha256: str) -> bool:
        """Delete a file for good; False where there is none. Who reads it later is told that it is missing: say first
        in the ledger that it was erased, and what holds now what others need of it."""
        key = self._key(sha256)
        was_there = self._area.has(key)
        self._area.erase(key)
        return was_there

    def _compute_sha256(self, key: str) -> str:
        return hash_chunks(self._area.read_chunks(key))

    @staticmethod
    def _key(sha256: str) -> str:
        return f"sha256/{_parse_sha256(sha256)[:2]}/{sha256}"


def _parse_sha256(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise KeyRefused(f'"{_show(text)}": is no SHA-256. Give 64 hexadecimal digits in lower case.')
    return text


def hash_chunks(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _compute_md5(data: bytes) -> str:
    return b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


# ---------------------------------------------------------------- files of the caller


def hash_file(path: Path) -> str:
    """The SHA-256 of a local file of any size, in lower-case hexadecimal. Raises FileMissing, AreaUnavailable."""
    return hash_chunks(_read_content(path))


@contextlib.contextmanager
def _local_faults(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        text = f"{_show(str(path))}: there is no such file. Look whether it was moved or deleted."
        raise FileMissing(text) from None
    except OSError as fault:
        raise AreaUnavailable(f"{_show(str(path))}: {_explain(fault)}") from fault


def _measure(data: Content) -> int:
    """Size in bytes. Raises FileMissing for what is no ordinary file, such as a pipe, which has none."""
    if not isinstance(data, Path):
        return len(data)
    with _local_faults(data):
        status = data.stat()
    if not stat.S_ISREG(status.st_mode):
        raise FileMissing(f"{_show(str(data))}: is no ordinary file. Give the file itself.")
    return status.st_size


def _read_content(data: Content, chunk_bytes: int = _CHUNK_BYTES) -> Iterator[bytes]:
    """Bytes in one piece, a file in pieces of `chunk_bytes`. Raises FileMissing, AreaUnavailable."""
    if not isinstance(data, Path):
        yield data
        return
    with _local_faults(data), data.open("rb") as file:
        while chunk := file.read(chunk_bytes):
            yield chunk


def _fetch(area: FileArea, key: str, path: Path) -> str:
    temporary, digest = path.parent / _name_temporary(), hashlib.sha256()
    with _local_faults(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                for chunk in area.read_chunks(key):
                    digest.update(chunk)
                    file.write(chunk)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return digest.hexdigest()


# ---------------------------------------------------------------- the drop-boxes of the sites

_UNFINISHED_ENDINGS = (".part", ".partial", ".filepart", ".crdownload", ".download", ".opdownload", ".tmp", ".temp")
_IGNORED_NAMES = frozenset({"desktop.ini", "thumbs.db", "ehthumbs.db", ".ds_store", ".directory", ".localized"})
_IGNORED_STARTS = ("~$", ".~lock.", "._")  # lock files of Office and LibreOffice, the shadow files of a Mac
_EXCEL_SAVING = re.compile(r"[0-9A-Fa-f]{8}")  # how Excel names a workbook while it saves it on a network drive


def find_ignored_reason(name: str) -> str:
    """Why a file in an inbox is nobody's return: '' when it may be one. `name` may have folders in front."""
    own = name.rpartition("/")[2]
    if own.lower() in _IGNORED_NAMES or own.startswith(_IGNORED_STARTS):
        return "made by a computer, not by a person"
    return ""


@dataclass(frozen=True)
class WaitingFile:
    """A file in an inbox. `name` as found, for `take` and `clear`; show `safe_name`. `remark`: why it is left."""

    name: str
    size: int
    modified_at: datetime
    remark: str = ""

    @property
    def safe_name(self) -> str:
        return safe_name(self.name)


@dataclass(frozen=True)
class Inbox:
    """What lies in an inbox, by name: each file is in exactly one of the three."""

    waiting: tuple[WaitingFile, ...]
    unfinished: tuple[WaitingFile, ...]
    ignored: tuple[WaitingFile, ...]


class DropBox:
    """The folders of one site: what it posts (inbox), what we send it (outbox), what we say to a file (receipts)."""

    def __init__(self, area: FileArea, site_id: str) -> None:
        if "/" in site_id:
            raise KeyRefused(f'"{_show(site_id)}": a site\'s id has no "/". Correct the site file.')
        self._area = area
        self._site = parse_key(site_id)

    def prepare(self) -> None:
        """Make the folders, so that a person finds where to put a file."""
        for folder in ("inbox", "outbox", "receipts"):
            self._area.make_folder(f"{self._site}/{folder}")

    def post(self, name: str, data: bytes) -> None:
        """The site's side: put a file in, replacing one of the same name."""
        self._area.put(f"{self._site}/inbox/{name}", data)

    def look(self, now: datetime, settle_seconds: float = 60.0) -> Inbox:
        """Sort what lies in the inbox, folders in it included.

        Unfinished is a name that programs give to a copy in progress, or a file changed less than `settle_seconds`
        from `now` that is no complete zip (a workbook is one). A change dated later than that is a wrong clock's,
        and no reason to wait. `now` has a time zone.
        """
        folder = f"{self._site}/inbox/"
        waiting: list[WaitingFile] = []
        unfinished: list[WaitingFile] = []
        ignored: list[WaitingFile] = []
        for stored in self._area.list(folder, everything=True):
            name = stored.key.removeprefix(folder)
            if not name:
                continue  # the marker that some programs make for the inbox itself
            if reason := find_ignored_reason(name) if stored.is_file else "a link, a folder or a device, not a file":
                ignored.append(WaitingFile(name, stored.size, stored.modified_at, reason))
            elif reason := self._find_unfinished_reason(stored, now, settle_seconds):
                unfinished.append(WaitingFile(name, stored.size, stored.modified_at, reason))
            else:
                waiting.append(WaitingFile(name, stored.size, stored.modified_at))
        return Inbox(tuple(waiting), tuple(unfinished), tuple(ignored))

    def waiting(self, now: datetime, settle_seconds: float = 60.0) -> list[WaitingFile]:
        """The files to be taken, by name; `look` also says what is left, and why."""
        return list(self.look(now, settle_seconds).waiting)

    def take(self, name: str, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> bytes:
        """What is in a waiting file; it stays until `clear`. Raises FileMissing, FileTooLarge."""
        return self._area.get(self._inbox(name), limit_bytes=limit_bytes)

    def compute_sha256(self, name: str) -> str:
        """Of a file of any size, without holding it in memory. Raises FileMissing."""
        return hash_chunks(self._area.read_chunks(self._inbox(name)))

    def clear(self, name: str, sha256: str) -> bool:
        """Take a file out of the inbox, once its content is stored elsewhere under `sha256`.

        False, and nothing is deleted, when the site has replaced it meanwhile: the next round takes the new one.
        """
        return self._area.delete_if(self._inbox(name), sha256)

    def set_aside(self, name: str, sha256: str, *, as_name: str = "") -> str:
        """Move a file that can't be stored (too large) out of the inbox, unread; the key it then has in the area.
        `as_name`: what it is called there, where its own name must not be repeated."""
        key = f"{self._site}/set_aside/{_parse_sha256(sha256)[:16]}-{safe_name(as_name or name)}"
        self._area.move(self._inbox(name), key)
        return key

    def leave_receipt(self, name: str, data: bytes) -> None:
        self._area.put(f"{self._site}/receipts/{name}", data)

    def send(self, name: str, data: bytes) -> None:
        self._area.put(f"{self._site}/outbox/{name}", data)

    def has_sent(self, name: str, sha256: str) -> bool:
        """Whether a file lies in the outbox with this content."""
        try:
            return hash_chunks(self._area.read_chunks(f"{self._site}/outbox/{name}")) == sha256
        except FileMissing:
            return False

    def take_back(self, name: str, sha256: str) -> bool:
        """Take a file out of the outbox, if this is still its content."""
        return self._area.delete_if(f"{self._site}/outbox/{name}", sha256)

    def _inbox(self, name: str) -> str:
        return f"{self._site}/inbox/{name}"

    def _find_unfinished_reason(self, stored: Stored, now: datetime, settle_seconds: float) -> str:
        own = stored.key.rpartition("/")[2]
        if own.lower().endswith(_UNFINISHED_ENDINGS):
            return "named as a copy in progress"
        if abs((now - stored.modified_at).total_seconds()) >= settle_seconds:
            return ""
        if _EXCEL_SAVING.fullmatch(own):
            return "being saved"
        try:
            return "" if self._is_complete_zip(stored) else "still being written"
        except FileMissing:
            return "taken away while we looked"

    def _is_complete_zip(self, stored: Stored) -> bool:
        """A zip's last record says where it ends; a file cut short, or not yet filled, has none at its end."""
        tail = self._area.read_end(stored.key, _ZIP_TAIL_BYTES)
        found = tail.rfind(b"PK\x05\x06")
        while found >= 0:
            if found + 22 <= len(tail):
                length_of_comment = int.from_bytes(tail[found + 20 : found + 22], "little")
                if found + 22 + length_of_comment == len(tail):
                    return True
            found = tail.rfind(b"PK\x05\x06", 0, found)
        return False


# ---------------------------------------------------------------- releases


def publish_folder(
    area: FileArea, files: Mapping[str, Content], final_prefix: str, last: str = "manifest.json"
) -> Published:
    """Publish a set of files so that readers see all of it or nothing: a release counts once it has its `last` file.

    `files` by their key under `final_prefix`; the `last` one is small. A file of the caller's (a Path) may have any
    size. The caller has closed it and never writes to it again: on the same disk it may become the second name of the
    published file (`_link`). It may be deleted afterwards. "same" when exactly this is published already: a run that
    was killed can be repeated. Raises ReleaseDiffers when something else is, KeyRefused, FileMissing (of a caller's
    file), AreaUnavailable.
    """
    for key in (final_prefix, *(f"{final_prefix}/{name}" for name in files)):
        parse_key(key)
    if last not in files:
        raise KeyRefused(f'{area.place}/{final_prefix}: no "{last}" among the files to publish. Add it: it comes last.')
    if final_prefix.rpartition("/")[2] == "latest":
        raise KeyRefused(f'{area.place}/{final_prefix}: "latest" stands for the newest release. Give it another name.')
    for data in files.values():
        _measure(data)  # before anything is written
    return area.publish(files, final_prefix, last)


def point_latest(area: FileArea, releases_prefix: str, release: str, last: str = "manifest.json") -> None:
    """Let `latest` beside the releases stand for this one: a link on a folder, a copy on S3.

    Raises FileMissing when the release is not published.
    """
    parse_key(f"{releases_prefix}/{release}")
    area.describe(f"{releases_prefix}/{release}/{last}")
    area.point(releases_prefix, release, last)


def find_releases(area: FileArea, releases_prefix: str, last: str = "manifest.json") -> list[str]:
    """Names of the published releases, sorted; those without their `last` file, and `latest`, left out."""
    keys = [stored.key.removeprefix(f"{releases_prefix}/") for stored in area.list(f"{releases_prefix}/")]
    names = {key.removesuffix(f"/{last}") for key in keys if key.endswith(f"/{last}")}
    return sorted(name for name in names if "/" not in name and name != "latest")


def _compare_release(area: FileArea, files: Mapping[str, Content], final_prefix: str) -> Published:
    """ "same", or ReleaseDiffers. What a computer drops beside the files (.DS_Store) makes no difference."""
    stored = {entry.key.removeprefix(f"{final_prefix}/"): entry for entry in area.list(f"{final_prefix}/")}
    stored = {name: entry for name, entry in stored.items() if not find_ignored_reason(name)}
    differing = sorted(stored.keys() ^ files.keys())
    for name in sorted(stored.keys() & files.keys()):
        if not _has_content(area, stored[name], files[name]):
            differing.append(name)
    if differing:
        shown = ", ".join(_show(name) for name in differing[:5]) + (", ..." if len(differing) > 5 else "")
        raise ReleaseDiffers(
            f"{area.place}/{final_prefix}: published already with other content ({shown}). "
            "A release is never changed: publish under another name."
        )
    return "same"


def _has_content(area: FileArea, stored: Stored, data: Content) -> bool:
    """Whether a stored file is the same, byte for byte, held piece by piece."""
    if stored.size != _measure(data):
        return False
    if not isinstance(data, Path):
        return _is_same(area.read_chunks(stored.key), BytesIO(data))
    with _local_faults(data), data.open("rb") as file:
        return _is_same(area.read_chunks(stored.key), file)


def _is_same(chunks: Iterator[bytes], file: BinaryIO) -> bool:
    return all(file.read(len(chunk)) == chunk for chunk in chunks) and not file.read(1)
