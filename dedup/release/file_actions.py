"""What is done to files, each step written down before it is taken, so that it can be taken back."""

from __future__ import annotations

import base64
import errno
import fcntl
import hashlib
import json
import os
import posixpath
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal
from urllib.parse import quote

from dedup.errors import InputError, RunDirectoryError
from dedup.storage.atomic import hidden_name
from dedup.storage.input.samples import one_line

Action = Literal["list", "move", "trash", "delete", "hard", "sym", "reflink"]
LINKS: Final = ("hard", "sym", "reflink")
_FICLONE: Final = 0x40049409  # of Linux: share the blocks of a file
_FOLDER: Final = "_apply"
_HELD_BYTES: Final = 64 * 1024
_DONE: Final = ".undone"


class Journal:
    """A file with a line for each step; `begin` writes it before the step is taken."""

    def __init__(self, run_dir: str, action: Action) -> None:
        folder = os.path.join(run_dir, _FOLDER)
        try:
            os.makedirs(folder, exist_ok=True)
            number = 1 + max((int(name[:5]) for name in os.listdir(folder) if name[:5].isdigit()), default=0)
            self.path = os.path.join(folder, f"{number:05d}-{action}.jsonl")
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        except OSError as error:
            raise RunDirectoryError(
                f"{folder} can't be written ({one_line(error)}); it holds what is needed to take everything back: make it writable"
            ) from error
        self.n_steps = 0

    def begin(self, **step: Any) -> None:
        """Write down a step; paths with bytes that are no text are kept as they are."""
        line = json.dumps(step) + "\n"
        os.write(self._file, line.encode())  # one write: a process that is killed leaves whole lines
        self.n_steps += 1

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        os.fsync(self._file)
        os.close(self._file)
        if not self.n_steps:
            os.unlink(self.path)


@dataclass(frozen=True)
class Files:
    """A file to act on, and those that have to do with it."""

    path: str
    target: str = ""  # where it goes, of `move` and `trash`
    keeper: str = ""  # a file that stays and has the same bytes
    sha256: str = ""  # of these
    is_text: bool = False  # whether it stands beside an image


def act(action: Action, files: Files, journal: Journal) -> str:
    """Do something to a file; returns why not, '' if it was done. Raises OSError; the file is then as it was."""
    if action == "delete":
        journal.begin(action=action, **_as_it_is(files))
        os.unlink(files.path)
        return ""
    if action in LINKS:
        if os.path.samefile(files.path, files.keeper):
            return "it is a link to the kept file already"
        scratch = hidden_name(files.path)
        journal.begin(action=action, scratch=scratch, **_as_it_is(files))
        _link(action, files, scratch)
        return ""
    if os.path.lexists(files.target):
        return "the place where it would go is taken"
    os.makedirs(os.path.dirname(files.target), exist_ok=True)
    scratch = hidden_name(files.target)
    journal.begin(action=action, path=files.path, target=files.target, scratch=scratch)
    try:
        move(files.path, files.target, scratch)
    except OSError:
        if action == "trash":
            with suppress(FileNotFoundError):
                os.unlink(note_of(files.target))
        raise
    return ""


def _as_it_is(files: Files) -> dict[str, Any]:
    """What is needed to make a file anew."""
    status, content = os.stat(files.path), ""
    if files.is_text and status.st_size <= _HELD_BYTES:  # nothing else has its bytes
        with open(files.path, "rb") as file:
            content = base64.b64encode(file.read()).decode()
    return {
        "path": files.path, "keeper": files.keeper, "sha256": files.sha256, "content": content,
        "times": [status.st_atime_ns, status.st_mtime_ns], "mode": status.st_mode,
    }  # fmt: skip


def move(path: str, target: str, scratch: str) -> None:
    """Move a file; to another file system by a copy under another name, that is whole before the file goes."""
    try:
        os.rename(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with _removed(scratch):
            shutil.copy2(path, scratch, follow_symlinks=False)
            with open(scratch, "rb") as copied:
                os.fsync(copied.fileno())
            os.rename(scratch, target)
        os.unlink(path)


@contextmanager
def _removed(scratch: str) -> Iterator[None]:
    """Remove a file that was not renamed."""
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            os.unlink(scratch)


def _link(action: Action, files: Files, scratch: str) -> None:
    with _removed(scratch):
        _make_link(action, files.keeper, scratch)
        if action == "reflink":
            shutil.copystat(files.path, scratch)
        os.replace(scratch, files.path)


def _make_link(action: Action, keeper: str, path: str) -> None:
    if action == "hard":
        os.link(keeper, path)
    elif action == "sym":
        os.symlink(os.path.relpath(keeper, os.path.dirname(os.path.realpath(path))), path)
    else:
        with open(keeper, "rb") as source, open(path, "xb") as clone:
            fcntl.ioctl(clone.fileno(), _FICLONE, source.fileno())


def can_link(action: Action, keeper: str, folder: str) -> str:
    """Why a file can't be linked from a folder, '' if it can; tried out under a hidden name."""
    scratch = hidden_name(os.path.join(folder, "probe"))
    try:
        with _removed(scratch):
            _make_link(action, keeper, scratch)
    except OSError as error:
        return error.strerror or one_line(error)
    return ""


@dataclass(frozen=True)
class Trash:
    """The trash of the desktop, as freedesktop.org specifies it: in the home folder, or at the top of another file system."""

    home: str

    @classmethod
    def of_user(cls) -> Trash:
        """The trash of the user."""
        return cls(os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share"), "Trash"))

    def place_for(self, path: str) -> str:
        """A free place for a file, with its note; the folder is made."""
        top = self._top_of(path)
        files, info = (os.path.join(top, name) for name in ("files", "info"))
        for folder in (files, info):
            os.makedirs(folder, mode=0o700, exist_ok=True)
        stem, suffix = os.path.splitext(os.path.basename(path))
        number = 0
        while True:
            name = f"{stem}{f'.{number}' if number else ''}{suffix}"
            try:
                note = os.open(os.path.join(info, f"{name}.trashinfo"), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                number += 1
                continue
            with os.fdopen(note, "w") as file:
                when = time.strftime("%Y-%m-%dT%H:%M:%S")
                file.write(f"[Trash Info]\nPath={quote(os.fsencode(os.path.abspath(path)))}\nDeletionDate={when}\n")
            return os.path.join(files, name)

    def _top_of(self, path: str) -> str:
        os.makedirs(self.home, mode=0o700, exist_ok=True)
        device = os.lstat(path).st_dev
        if os.stat(self.home).st_dev == device:
            return self.home
        folder = os.path.dirname(os.path.abspath(path))
        while (parent := os.path.dirname(folder)) != folder and os.stat(parent).st_dev == device:
            folder = parent
        return os.path.join(folder, f".Trash-{os.getuid()}")


def note_of(trashed: str) -> str:
    """The note beside a file in the trash."""
    folder, name = os.path.split(trashed)
    return os.path.join(os.path.dirname(folder), "info", f"{name}.trashinfo")


def last_journal(run_dir: str) -> str:
    """The last journal that was not taken back.

    Raises InputError if there is none.
    """
    folder = os.path.join(run_dir, _FOLDER)
    names = sorted(name for name in os.listdir(folder) if name.endswith(".jsonl")) if os.path.isdir(folder) else []
    if not names:
        raise InputError(f"{run_dir}: nothing to take back; `dedup apply` has done nothing to the files of this run")
    return os.path.join(folder, names[-1])


def undo(journal: str) -> Iterator[tuple[str, str]]:
    """Take back the steps of a journal, the last one first; yields each path with why it could not be taken back, '' if it was."""
    with open(journal, "rb") as file:
        steps = [json.loads(line) for line in file if line.endswith(b"\n")]
    for step in reversed(steps):
        try:
            said = _undo_step(step)
        except OSError as error:
            said = error.strerror or one_line(error)
        yield step["path"], said


def close_journal(journal: str) -> None:
    """Mark a journal as taken back."""
    os.rename(journal, journal + _DONE)


def _undo_step(step: dict[str, Any]) -> str:
    path = step["path"]
    if step["action"] in ("move", "trash"):
        if not os.path.lexists(step["target"]):
            return "" if os.path.lexists(path) else "it is not where it was moved to any more"
        if os.path.lexists(path):
            return "another file has its name now"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        move(step["target"], path, hidden_name(path))
        if step["action"] == "trash":
            with suppress(FileNotFoundError):
                os.unlink(note_of(step["target"]))
        return ""
    if step["action"] == "delete" and os.path.lexists(path):
        return ""  # it was not deleted any more, or is back
    if step["action"] == "delete" and not step["keeper"] and not step["content"]:
        return "it was deleted, and no file with its bytes is left"
    return _copy_back(step)


def _copy_back(step: dict[str, Any]) -> str:
    """Give a file that has become a link, or was deleted, its own bytes and times again: those of the kept file, which were the same."""
    path, keeper = step["path"], step["keeper"]
    if step["action"] in ("hard", "sym") and not os.path.samefile(path, keeper):
        return ""
    scratch = hidden_name(path)
    with _removed(scratch):
        if keeper:
            shutil.copyfile(keeper, scratch)
            with open(scratch, "rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != step["sha256"]:
                    return "the kept file, whose bytes it had, has changed"
        else:
            with open(scratch, "xb") as file:
                file.write(base64.b64decode(step["content"]))
        os.chmod(scratch, stat.S_IMODE(step["mode"]))
        os.utime(scratch, ns=tuple(step["times"]))
        os.replace(scratch, path)
    return ""


def remove_leftovers(run_dir: str) -> None:
    """Remove what a process that was killed left under a hidden name, beside the last file it acted on."""
    folder = os.path.join(run_dir, _FOLDER)
    for name in os.listdir(folder) if os.path.isdir(folder) else []:
        with open(os.path.join(folder, name), "rb") as file:
            steps = file.read().splitlines()
        with suppress(ValueError, FileNotFoundError, IndexError):
            os.unlink(json.loads(steps[-1]).get("scratch", ""))


def below(root: str, folder: str, name: str) -> str:
    """Where a file of `folder` lies when the folder's name is put below `root`."""
    return os.path.join(root, *posixpath.normpath(os.path.relpath(name, folder)).split("/"))
