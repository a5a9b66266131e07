"""What webdataset itself reads, in a process of its own: it leaves the tars it has read open."""

import json
import subprocess
import sys

_READ = """
import json, sys
import webdataset as wds
import dedup
urls, run_dir = json.loads(sys.argv[1])
samples = wds.WebDataset(urls, shardshuffle=False)
if run_dir:
    samples = samples.select(dedup.keep(run_dir))
for sample in samples:
    print(json.dumps({name: value.hex() if isinstance(value, bytes) else value for name, value in sample.items()}))
"""


def read_webdataset(urls, run_dir=""):
    """Samples as webdataset makes them, those that `dedup.keep(run_dir)` keeps; members in hex digits."""
    asked = json.dumps([[str(url) for url in urls], str(run_dir)])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _READ, asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
