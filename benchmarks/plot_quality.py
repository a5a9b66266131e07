"""Draw `quality.json`: recall of each family of changes and its interval, a colour per tool.

python benchmarks/plot_quality.py quality-out/quality.json quality.png
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_TITLES = {"default": "default settings", "clean": "threshold chosen for no false merge"}
_MARKERS = "osD^vP*X<>"


def draw(report: dict[str, Any], target: Path) -> None:
    """Write the picture."""
    tools = {name: tool for name, tool in report["tools"].items() if "default" in tool}
    names = ["all", *report["families"]]
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    height = 1.2 + len(names) * (0.16 + 0.06 * len(tools))
    figure, axes = plt.subplots(1, 2, figsize=(12, height), sharey=True, layout="constrained")
    for axis, (setting, title) in zip(axes, _TITLES.items(), strict=True):
        for row in range(0, len(names), 2):
            axis.axhspan(row - 0.5, row + 0.5, color="0.95", zorder=0)
        for number, (tool, figures) in enumerate(tools.items()):
            result = figures[setting]
            shift = (number - (len(tools) - 1) / 2) * 0.84 / len(tools)
            merges = "" if setting == "clean" else f" ({result['merges']:,} false merges)"
            label = f"{tool}{merges}" if result is not None else f"{tool}: no such threshold"
            recalls = [] if result is None else [{"all": result["all"], **result["families"]}[name] for name in names]
            middle = [recall["recall"] for recall in recalls]
            reach = [[max(0.0, r["recall"] - r["low"]) for r in recalls], [max(0.0, r["high"] - r["recall"]) for r in recalls]]
            axis.errorbar(
                middle,
                [row + shift for row in range(len(middle))],
                xerr=reach if middle else None,
                fmt=_MARKERS[number % len(_MARKERS)],
                color=colours[number % 10],
                markersize=4.5,
                elinewidth=1,
                label=label,
            )
        axis.set_title(title, fontsize=11)
        axis.set_xlim(-0.03, 1.03)
        axis.set_xlabel("share of copies found, with 95% interval")
        axis.grid(axis="x", color="0.85", linewidth=0.6)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.6 / height), fontsize=8.5, ncols=2, frameon=False)
    axes[0].set_yticks(range(len(names)), [name.replace("_", " ") for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    figure.suptitle(f"{report['n_originals']} originals, {report['n_photos']} photos, {len(report['changes'])} changes", fontsize=11)
    figure.savefig(target, dpi=120)
    plt.close(figure)


def main() -> None:
    """Read JSON, write a picture."""
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
