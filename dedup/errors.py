"""The exception tree.

Every error a caller may want to catch derives from `DedupError`; its message is one line that says what
happened, what was expected, what was found and what to do next.

::

    DedupError
    ├── ConfigError          a key, value or combination of values that can't work        (exit 2)
    │   └── MissingExtra     a package of an optional extra is not installed              (exit 2)
    ├── RunDirectoryError    a run directory made with another configuration, or damaged  (exit 2)
    ├── ResourceError        memory or disk are too small for the run                     (exit 1)
    ├── InputError           no shard matches, or a shard can't be reached                (exit 1)
    ├── AccountingError      a run-time invariant does not hold; nothing was published    (exit 1)
    ├── StageError           a stage failed in a worker                                   (exit 1)
    ├── SchemaError          a table lacks a column, or has one of another type           (exit 1)
    ├── ShapeError           an array of another shape or type than documented            (exit 1)
    │   └── EdgeError        edges whose ends lie outside the graph                       (exit 1)
    └── SampleError          one sample can't be used: it becomes a row of `rejected`, never ends a run
"""

from __future__ import annotations

import errno
import os
from typing import Final

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def no_room(error: BaseException) -> str:
    """A message for an error caused by a full disk, whichever library raised it; empty for any other error."""
    text = str(error)
    if not (isinstance(error, OSError) and error.errno in NO_ROOM) and os.strerror(errno.ENOSPC) not in text:
        return ""
    problem = f"no room for {error.filename} ({error.strerror})" if isinstance(error, OSError) and error.filename else f"no room: {text}"
    return f"{problem}; free some space and run the same command again: finished parts are kept"


class DedupError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code = 1


class ConfigError(DedupError):
    """A configuration key or value that can't work; the message names it."""

    exit_code = 2


class MissingExtra(ConfigError):
    """A package of an optional extra is not installed.

    `package`: the import name that failed.
    `extra`: the extra of this distribution that brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs the package '{package}', which is not installed; run: pip install 'webdedup[{extra}]'")
        self.package = package
        self.extra = extra

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str]]:
        # workers send their errors, pickled, to the driver
        return MissingExtra, (self.package, self.extra)


class RunDirectoryError(DedupError):
    """A run directory that was made with another configuration or input, or is damaged."""

    exit_code = 2


class ResourceError(DedupError):
    """Memory or disk are too small for the run; the message gives both numbers, and nothing was written."""


class InputError(DedupError):
    """No shard matches the input, or a shard can't be reached."""


class AccountingError(DedupError):
    """A run-time invariant does not hold; the manifest is not published."""


class StageError(DedupError):
    """A stage failed on one of its tasks."""


class SchemaError(DedupError):
    """A table lacks a column of its schema, or has one that can't be cast."""


class ShapeError(DedupError):
    """An array of another shape or dtype than documented."""


class EdgeError(ShapeError):
    """Edges whose shapes differ or whose ends lie outside the graph."""


class SampleError(DedupError):
    """One sample can't be used.

    `reason`: a key of `dedup.schemas.REJECT_REASONS`.
    `detail`: what was found, for people to read.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[SampleError], tuple[str, str]]:
        return (SampleError, (self.reason, self.detail))


def unsupported(what: str) -> SampleError:
    """The error of an image of a kind that nothing here reads."""
    return SampleError("unsupported_format", f"{what}; saved as PNG or JPEG it would be read")
