"""The benchmark of products on a GPU runs to its end on torch's CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SIZES = ["--n", "20000", "--dim", "64", "--nlist", "60", "--min-similarity", "0.9", "--workers", "2"]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_a_table_and_a_file_are_written(device, tmp_path, require_extra):
    if device != "cpu" and not require_extra("torch").cuda.is_available():
        pytest.skip("needs a CUDA device")
    require_extra("torch")
    command = [
        sys.executable,
        ROOT / "benchmarks" / "gpu_pairs.py",
        "--device",
        device,
        "--scratch",
        tmp_path,
        "--out",
        tmp_path / "x.json",
        *SIZES,
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True)
    result = json.loads((tmp_path / "x.json").read_text())
    (run,) = result["runs"]
    assert run["n"] == 20_000
    assert run["planted_found"] > 0.99
    assert run["worker_seconds_of_join"]["device"] > 0
    assert 0 < run["share_of_limit"] < 1
    assert run["vectors_per_s"] == pytest.approx(20_000 / sum(run["seconds"][step] for step in ("assign", "sort", "join")), rel=0.05)
    assert "| 20,000 | 60, 8 |" in done.stdout
