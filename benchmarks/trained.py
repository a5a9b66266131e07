"""What a trained network finds, alone and with the descriptor beside it: planted copies and web edits of your own photos.

    python benchmarks/trained.py PHOTOS --n 20 --out trained-out

The network is EfficientNet-Lite0 (`trained_network.py`). All files are one folder: photos with the common changes of
`dedup/numerics/image/planting.py`, or with every edit of `edit_kinds.py`. A changed copy is found if a group holds it with any other
picture of its photo; a group with pictures of two photos is a false merge.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from edits import add_photo_arguments, chosen, figures, opened, write_files
from lookalikes import ours
from machine import describe_machine
from PIL import Image
from trained_network import SETTINGS, write_trained

from dedup.numerics.image.planting import changes, plant

_LOW = 0.6  # similarity of a network made to find more on its own


def write_planted(photos: list[Path], folder: Path, max_side: int, seed: int) -> dict[str, tuple[int, str]]:
    """Write photos and planted copies; returns photo and change by file name, '' for the photo itself."""
    folder.mkdir(parents=True)
    made = {}
    for number, path in enumerate(photos):
        photo = opened(path, max_side)
        names = [change.name for change in changes() if change.is_expected]
        pictures = {"": np.asarray(photo)} | {name: plant(np.asarray(photo), name, np.random.default_rng([seed, number])) for name in names}
        for name, pixels in pictures.items():
            file = f"{number:04d}-{name or 'photo'}.jpg"
            Image.fromarray(pixels).save(folder / file, quality=90)
            made[file] = (number, name)
    return made


def markdown(report: dict[str, Any]) -> str:
    """A row for each way of finding candidates, a pair of columns for each set."""
    lines = [
        "| candidates from | planted copies found | web edits found | pairs of photos merged | seconds |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, result in report["results"].items():
        found = " | ".join(f"{result[kind]['n_found']:,} of {report['n'][kind]:,}" for kind in ("planted", "edits"))
        merged = sum(len(result[kind]["merged_photos"]) for kind in ("planted", "edits"))
        lines.append(f"| {name} | {found} | {merged} | {sum(result[kind]['seconds'] for kind in ('planted', 'edits')):.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Make the files, run each way on both sets, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("trained-out"), help="files, runs and trained.json go here")
    add_photo_arguments(parser, n=20)
    parser.add_argument("--ways", help="only these: descriptor,network,network from 0.6,both")
    options = parser.parse_args()
    photos, others, kinds = chosen(options)
    shutil.rmtree(options.out, ignore_errors=True)
    options.out.mkdir(parents=True)
    made = {
        "planted": write_planted(photos, options.out / "planted", options.max_side, options.seed),
        "edits": write_files(photos, others, options.out / "edits", kinds, options.max_side, options.seed),
    }
    network = [*SETTINGS, f"encoder.pretrained={write_trained(options.out / 'network.pt')}"]
    ways = {
        "descriptor": [],
        "network": [*network, "embed.also=[]"],
        f"network from {_LOW}": [*network, "embed.also=[]", f"search.min_similarity={_LOW}"],
        "both": network,  # the default with a network
    }
    n = {kind: sum(bool(change) for _, change in files.values()) for kind, files in made.items()}
    report: dict[str, Any] = {"machine": describe_machine(), "seed": options.seed, "n_photos": len(photos), "n": n, "results": {}}
    for name, settings in ways.items():
        if options.ways and name not in options.ways.split(","):
            continue
        results = report["results"].setdefault(name, {})
        for kind, files in made.items():
            shutil.rmtree(options.out / "run", ignore_errors=True)
            seconds = ours(options.out / kind, options.out, settings)[1]
            tables = [
                pq.read_table(str(options.out / "run" / table), columns=["key", "component_id"]) for table in ("manifest", "duplicates")
            ]
            groups = {row["key"]: row["component_id"] for table in tables for row in table.to_pylist()}
            results[kind] = figures(groups, files) | {"seconds": round(seconds, 1)}
            print(f"{name}, {kind}: {results[kind]['n_found']} of {n[kind]}", file=sys.stderr)
    (options.out / "trained.json").write_text(json.dumps(report, indent=1) + "\n")
    print(markdown(report))


if __name__ == "__main__":
    main()
