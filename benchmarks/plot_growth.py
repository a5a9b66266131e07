"""Plot time and memory of `benchmarks/pairs.py` over the number of vectors.

for n in 100000 200000 500000 1000000; do python benchmarks/pairs.py --n $n; done > growth.jsonl
python benchmarks/plot_growth.py growth.jsonl docs/growth.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def main() -> None:
    """Read JSON lines, write a picture."""
    rows = sorted(
        (json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines() if line.startswith("{")), key=lambda row: row["n"]
    )
    n = [row["n"] for row in rows]
    figure, axis = plt.subplots(figsize=(6.4, 4.0))
    for stage in ("index", "pairs", "groups"):
        axis.loglog(n, [row["stages"][stage] for row in rows], marker="o", label=stage)
    axis.loglog(n, [row["seconds"] for row in rows], marker="s", color="black", label="all three")
    axis.loglog(n, [rows[0]["seconds"] * (value / n[0]) for value in n], linestyle=":", color="grey", label="linear")
    axis.loglog(n, [rows[0]["seconds"] * (value / n[0]) ** 1.5 for value in n], linestyle="--", color="grey", label="power 1.5")
    axis.set_xlabel("vectors")
    axis.set_ylabel("seconds, 2 cores")
    axis.legend()
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=110)


if __name__ == "__main__":
    main()
