"""Tars, images and captions that nobody thought of: mutations drawn by hypothesis, for a bounded time, in a process that may crash."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SECONDS = float(os.environ.get("DEDUP_FUZZ_SECONDS", "6"))
SEED = int(os.environ.get("DEDUP_FUZZ_SEED", "0"))
FUZZING = Path(__file__).parents[1] / "fuzzing.py"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["images", "tars", "captions"])
def test_nothing_is_raised_and_nothing_is_made_up(target, tmp_path):
    last = tmp_path / "last"
    command = [sys.executable, FUZZING, target, "--seconds", str(SECONDS), "--seed", str(SEED), "--last", last]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": str(tmp_path)})
    case = last.read_text()[:4_000]
    assert done.returncode == 0, f"{target}, seed and base64 of the case: {case}\n{done.stderr[-6_000:]}"
    figures = json.loads(done.stdout)
    assert figures["cases"] > 10 * SECONDS
    assert figures["peak_gb"] < 1.5
