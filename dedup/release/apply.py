"""Act on the copies that a run found in a folder: move, trash, delete or link them, and take it back."""

from __future__ import annotations

import errno
import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Final

from dedup.contracts import Progress, Reporter, SilentReporter
from dedup.errors import ConfigError, InputError
from dedup.release.file_actions import (
    LINKS,
    Action,
    Files,
    Journal,
    Trash,
    act,
    below,
    can_link,
    close_journal,
    last_journal,
    remove_leftovers,
    undo,
)
from dedup.runs.directory import Run
from dedup.runs.lock import locked
from dedup.storage.input.encodings import file_at
from dedup.storage.input.samples import IMAGE_SUFFIXES, file_suffix, one_line
from dedup.storage.tables import read_table
from dedup.storage.urls import absolute, is_local

_THREADS: Final = 8
_AHEAD: Final = 4_096  # copies whose files are read before the first of them is acted on
_FATAL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_READ_BYTES: Final = 1 << 20
_COLUMNS: Final = ("key", "shard", "sha256", "n_bytes", "kind", "keeper_id", "keeper_key", "keeper_shard")
# files that belong to an image of the same name; `x.jpg.txt` too
_SIDECARS: Final = frozenset({"txt", "caption", "text", "json", "xmp", "aae", "yaml", "yml", "npy", "npz", "md"})


@dataclass
class Applied:
    """What was done, or would be."""

    action: str
    is_dry_run: bool
    n_files: int = 0  # images
    n_sidecars: int = 0  # files that went with them
    n_bytes: int = 0  # that the images took
    left: Counter[str] = field(default_factory=Counter)  # images that were left alone, by reason
    journal: str = ""  # file that `--undo` reads

    def as_dict(self) -> dict[str, Any]:
        """The fields as plain data."""
        return asdict(replace(self, left=Counter())) | {"left": dict(self.left)}


@dataclass(frozen=True)
class _Copy:
    """A copy and the file that is kept instead."""

    path: str
    folder: str  # that the run read
    sha256: str
    n_bytes: int
    kind: str
    keeper: str
    keeper_sha256: str


def apply(
    run_dir: str,
    action: Action,
    *,
    target: str = "",
    protect: Sequence[str] = (),
    is_dry_run: bool = False,
    reporter: Reporter | None = None,
) -> Applied:
    """Act on the copies that a run over a folder of images found.

    Nothing is touched before both files, the copy and the one that is kept, have the bytes that the run compared; what has changed, gone or
    lies in a protected folder is left alone and counted. Text files beside an image go with it (not into links), unless another image has
    their name too. Every step is written down in ``RUN/_apply/`` before it is taken, so that `take_back` restores names, bytes and times,
    also after the process was killed.

    Parameters
    ----------
    run_dir : str
        A finished run with ``input.images``, on a local disk.
    action : {"list", "move", "trash", "delete", "hard", "sym", "reflink"}
        Links replace copies by links to the kept file; only copies that are equal byte for byte.
    target : str
        The folder that ``move`` moves to; files keep their paths below it.
    protect : sequence of str
        Folders in which nothing is touched.
    is_dry_run : bool
        Check everything and do nothing.
    reporter : Reporter

    Raises
    ------
    InputError
        If the run did not read a local folder, or files can't be linked or moved there: before anything is touched.
    ConfigError
        If `target` does not fit the action.
    """
    _check(action, target)
    run = Run(run_dir)
    copies = list(_copies_of(run))
    guarded = [os.path.realpath(folder) for folder in protect]
    done = Applied(action, is_dry_run or action == "list")
    wanted = [copy for copy in copies if not _left_alone(copy, action, guarded, done.left)]
    if not done.is_dry_run:
        _probe(action, target, wanted)
    with nullcontext() if done.is_dry_run else locked(run_dir):
        _carry_out(run_dir, action, target, wanted, done, reporter or SilentReporter())
    return done


def copies_to_act_on(run_dir: str) -> Iterator[str]:
    """Paths of the copies that a run found in a folder, in the order of its tables."""
    return (copy.path for copy in _copies_of(Run(run_dir)))


def take_back(run_dir: str) -> Applied:
    """Take back what `apply` did last: files have their names, bytes and times again.

    Raises InputError if there is nothing to take back.
    """
    journal = last_journal(run_dir)
    done = Applied("undo", is_dry_run=False, journal=journal)
    with locked(run_dir):
        remove_leftovers(run_dir)
        for _, why_not in undo(journal):
            done.n_files += not why_not
            if why_not:
                done.left[why_not] += 1
        if not done.left:
            close_journal(journal)
    return done


def _check(action: Action, target: str) -> None:
    if (action == "move") != bool(target):
        raise ConfigError(f"action {action} with target '{target}'; expected a folder with move, and none with the others")


def _copies_of(run: Run) -> Iterator[_Copy]:
    """The copies of a run over a local folder.

    Raises InputError for other runs.
    """
    config = run.config
    remote = [folder for folder in config.input.images if not is_local(absolute(folder))]
    if not config.input.images or remote:
        what = f"a folder that is not on this machine's disks ({remote[0]})" if remote else "tars, files of rows or embeddings"
        raise InputError(
            f"{run.url} read {what}; files can be acted on in local folders only: `dedup rewrite {run.url} OUT` writes clean data"
        )
    table = read_table(run.table("duplicates"), list(_COLUMNS))
    kept = read_table(run.table("manifest"), ["sample_id", "sha256"])
    sha256_of = dict(zip(kept["sample_id"].to_pylist(), kept["sha256"].to_pylist(), strict=True))
    for row in table.to_pylist():
        folder = row["shard"].rstrip("/")
        keeper = path_of(row["keeper_shard"].rstrip("/"), row["keeper_key"])
        yield _Copy(
            path_of(folder, row["key"]), folder, row["sha256"], row["n_bytes"], row["kind"], keeper, sha256_of.get(row["keeper_id"], "")
        )


def path_of(folder: str, key: str) -> str:
    r"""The file of a key; bytes that are no text are written as ``\xNN`` in tables."""
    return file_at(os.path.join(folder, ""), key)


def _left_alone(copy: _Copy, action: Action, guarded: Sequence[str], left: Counter[str]) -> bool:
    """Whether a copy is not acted on, whatever its files are now."""
    reason = ""
    if action in LINKS and copy.kind != "exact":
        reason = "not equal byte for byte: a link would lose it"
    elif guarded and any(_is_below(os.path.realpath(copy.path), folder) for folder in guarded):
        reason = "in a protected folder"
    if reason:
        left[reason] += 1
    return bool(reason)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _probe(action: Action, target: str, copies: Sequence[_Copy]) -> None:
    """Find out before anything is touched whether files can be linked, moved and removed."""
    folders = {os.path.dirname(copy.path): copy for copy in copies}
    closed = [folder for folder in folders if os.path.isdir(folder) and not os.access(folder, os.W_OK | os.X_OK)]
    if closed:
        raise InputError(
            f"{len(closed)} folders can't be written, the first is {closed[0]}; nothing was touched: make them writable, or --protect them"
        )
    if action in LINKS:
        for folder, copy in folders.items():
            if os.path.isdir(folder) and os.path.exists(copy.keeper) and (said := can_link(action, copy.keeper, folder)):
                raise InputError(
                    f"{copy.keeper} can't be linked from {folder} ({said}); nothing was touched: choose another kind of link, or --move"
                )
    if action == "move":
        inside = next((copy.folder for copy in copies if _is_below(os.path.realpath(target), os.path.realpath(copy.folder))), "")
        if inside:
            raise InputError(
                f"--move {target} lies in {inside}, which the run read: the next run would read it again; choose another folder"
            )
        try:
            os.makedirs(target, exist_ok=True)
        except OSError as error:
            raise InputError(f"--move {target} can't be made ({one_line(error)}); nothing was touched: choose another folder") from error


def _carry_out(run_dir: str, action: Action, target: str, copies: Sequence[_Copy], done: Applied, reporter: Reporter) -> None:
    names = NamesBeside()
    with ExitStack() as opened:
        pool = opened.enter_context(ThreadPoolExecutor(_THREADS))
        worker = None
        if not done.is_dry_run:
            remove_leftovers(run_dir)
            journal = opened.enter_context(Journal(run_dir, action))
            worker = _Worker(action, target, journal, Trash.of_user() if action == "trash" else None)
            done.journal = journal.path
        for number, (copy, why_not) in enumerate(_checked(copies, pool), start=1):
            beside = () if why_not or action in LINKS else names.of(copy.path)
            try:
                reason = why_not or (worker.act(copy, beside) if worker is not None else "")
            except OSError as error:
                reason = error.strerror or one_line(error)  # without the path: reasons are counted
                if error.errno in _FATAL:
                    raise InputError(
                        f"{copy.path}: {reason}; nothing is lost: {done.n_files:,} copies were acted on, and "
                        f"`dedup apply {run_dir} --undo` takes that back"
                    ) from error
            if reason:
                done.left[reason] += 1
            else:
                names.take(copy.path, beside)
                done.n_files, done.n_bytes, done.n_sidecars = done.n_files + 1, done.n_bytes + copy.n_bytes, done.n_sidecars + len(beside)
            reporter.progress(Progress("apply", number, len(copies), "copies"))
    done.journal = done.journal if os.path.exists(done.journal) else ""


@dataclass(frozen=True)
class _Worker:
    """Acts on one copy after the other."""

    action: Action
    target: str
    journal: Journal
    trash: Trash | None

    def act(self, copy: _Copy, beside: Sequence[str]) -> str:
        """Act on the files beside a copy, then on itself: a call that was killed can be repeated; returns why not, '' if it was done."""
        if self.action == "move" and any(os.path.lexists(self._place(copy, path)) for path in (*beside, copy.path)):
            return "the place where it would go is taken"
        for path in beside:
            act(self.action, Files(path, self._place(copy, path), is_text=True), self.journal)
        keeper = copy.keeper if copy.kind == "exact" else ""
        return act(self.action, Files(copy.path, self._place(copy, copy.path), keeper, copy.sha256), self.journal)

    def _place(self, copy: _Copy, path: str) -> str:
        if self.trash is not None:
            return self.trash.place_for(path)
        return below(self.target, copy.folder, path) if self.action == "move" else ""


def _checked(copies: Sequence[_Copy], pool: ThreadPoolExecutor) -> Iterator[tuple[_Copy, str]]:
    """Each copy with why it can't be acted on, '' if both files have the bytes that the run compared; files are read ahead."""
    kept: dict[str, Future[_Seen]] = {}
    waiting: deque[tuple[_Copy, Future[_Seen]]] = deque()
    rest = iter(copies)
    while True:
        for copy in islice(rest, _AHEAD - len(waiting)):
            if copy.keeper not in kept:
                kept[copy.keeper] = pool.submit(_look, copy.keeper, copy.keeper_sha256)
            waiting.append((copy, pool.submit(_look, copy.path, copy.sha256)))
        if not waiting:
            return
        copy, own = waiting.popleft()
        yield copy, _why_not(copy, own.result(), kept[copy.keeper].result())


@dataclass(frozen=True)
class _Seen:
    """A file as it was read."""

    wrong: str  # what is wrong with it, '' if it has the bytes that the run read
    stamp: tuple[int, ...] = ()


def _look(path: str, sha256: str) -> _Seen:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            stamp = _stamp(os.fstat(file.fileno()))
            while block := file.read(_READ_BYTES):
                digest.update(block)
    except FileNotFoundError:
        return _Seen("is not there any more")
    except OSError as error:
        return _Seen(f"can't be read ({error.strerror or one_line(error)})")
    return _Seen("" if digest.hexdigest() == sha256 else "has changed since the run", stamp)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_size, status.st_mtime_ns


def _why_not(copy: _Copy, own: _Seen, kept: _Seen) -> str:
    """Why a copy can't be acted on just now, '' if it can: never without the file that is kept."""
    if own.wrong or kept.wrong:
        return f"it {own.wrong}" if own.wrong else f"the kept file {kept.wrong}"
    try:
        now = [os.stat(path) for path in (copy.path, copy.keeper)]
    except OSError:
        return "a file has gone just now"
    if os.path.samestat(*now):
        return "it is the kept file under another name"
    if os.path.islink(copy.path):
        return "it is a symbolic link"
    return "" if [_stamp(status) for status in now] == [own.stamp, kept.stamp] else "a file is being written just now"


class NamesBeside:
    """The text files of images, by folder, as they are now."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[Counter[str], set[str]]] = {}

    def of(self, path: str) -> tuple[str, ...]:
        """Files that belong to an image and to no other: ``x.txt`` and ``x.jpg.txt`` of ``x.jpg``, unless there is an ``x.png``."""
        folder, name = os.path.split(path)
        images, texts = self._in(folder)
        stem = os.path.splitext(name)[0]
        spellings = [name] + ([stem] if images[stem] == 1 else [])
        return tuple(sorted(os.path.join(folder, f"{spelling}{suffix}") for spelling in spellings for suffix in _suffixes(spelling, texts)))

    def take(self, path: str, beside: Sequence[str]) -> None:
        """Note that an image and its files are gone."""
        folder, name = os.path.split(path)
        images, texts = self._in(folder)
        images[os.path.splitext(name)[0]] -= 1
        texts -= {os.path.basename(other) for other in beside}

    def _in(self, folder: str) -> tuple[Counter[str], set[str]]:
        if folder not in self._folders:
            names = os.listdir(folder)
            images = Counter(os.path.splitext(name)[0] for name in names if file_suffix(name) in IMAGE_SUFFIXES)
            self._folders[folder] = images, {name for name in names if file_suffix(name) in _SIDECARS}
        return self._folders[folder]


def _suffixes(spelling: str, texts: set[str]) -> list[str]:
    """What follows a name in the files of its text, with the dot."""
    return [f".{suffix}" for lower in _SIDECARS for suffix in (lower, lower.upper()) if f"{spelling}.{suffix}" in texts]
