"""Act on the copies of a run, be killed at random moments, and take it back: python killed_apply.py RUN PHOTOS N SEED."""

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from dedup.release.apply import apply, take_back


def state(folder):
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()
    }


def in_child(work):
    """Run a function in a forked process; nothing has started a thread here."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def n_steps(run):
    return sum(path.read_bytes().count(b"\n") for path in (run / "_apply").glob("*.jsonl")) if (run / "_apply").is_dir() else 0


def main(run, photos, n, seed):
    rng, before, moved = random.Random(seed), state(photos), photos.parent / "moved"
    n_killed = 0
    for number in range(n):
        action = ("move", "hard", "sym")[number % 3]
        pid = in_child(lambda action=action: apply(str(run), action, target=str(moved) if action == "move" else ""))
        wanted = rng.randrange(1, 100)
        while n_steps(run) < wanted and os.waitpid(pid, os.WNOHANG) == (0, 0):
            time.sleep(0)
        try:
            os.kill(pid, signal.SIGKILL)
            n_killed += os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        except (ProcessLookupError, ChildProcessError):
            pass
        after = state(photos)
        lost = before.keys() - after.keys() - (state(moved).keys() if moved.is_dir() else set())
        lost |= {name for name, (data, _) in after.items() if name in before and data != before[name][0]}
        assert not lost, (action, wanted, lost)
        if n_steps(run):
            pid = in_child(lambda: take_back(str(run)))
            assert os.waitpid(pid, 0)[1] == 0
        after = state(photos)
        assert after == before, (action, wanted, [name for name in before | after if before.get(name) != after.get(name)])
        shutil.rmtree(run / "_apply", ignore_errors=True)
        shutil.rmtree(moved, ignore_errors=True)
    print(n_killed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
