"""The command line in the tests' own process: what `dedup` would print and return, without the second that an interpreter takes to start."""

import os
import subprocess
import sys
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from unittest.mock import patch

from dedup.cli.main import main


def dedup(*arguments, cwd=None, env=None):
    """Run `dedup` with these arguments, as `subprocess.run` would give it."""
    words = ["dedup", *map(str, arguments)]
    said, told, code = StringIO(), StringIO(), 0
    with redirect_stdout(said), redirect_stderr(told), patch.object(sys, "argv", words), _in(cwd), _surroundings(env):
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    return subprocess.CompletedProcess(words, code, said.getvalue(), told.getvalue())


def leaves(command, name=()):
    """Every command of the click tree, with its path."""
    for word, entry in getattr(command, "commands", {}).items():
        yield from leaves(entry, (*name, word))
    if not hasattr(command, "commands"):
        yield name, command


@contextmanager
def _in(cwd):
    before = os.getcwd()
    os.chdir(cwd or before)
    try:
        yield
    finally:
        os.chdir(before)


@contextmanager
def _surroundings(env):
    with patch.dict(os.environ, env or {}, clear=env is not None):
        yield
