"""Runs in the peers' own environment for `quality.py`: hashes, or pairs, of files to a JSON file; imports nothing of this project.

python peer_worker.py phash|dhash FOLDER OUT.json          imagededup: {file: 16 hex digits}
python peer_worker.py pdq FOLDER OUT.json                  pdqhash: {file: [quality, 8 hashes of 64 hex digits]}
python peer_worker.py fastdup BATCHES.json OUT.json        fastdup: {batch: [[place, place, similarity], …]}
"""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path


def hash_folder(method: str, folder: str) -> dict[str, str]:
    """Hash all files as imagededup does."""
    from imagededup.methods import DHash, PHash

    hasher = (PHash if method == "phash" else DHash)(verbose=False)
    return dict(hasher.encode_images(image_dir=folder, recursive=True, num_enc_workers=len(os.sched_getaffinity(0))))


def pdq(path: str) -> list[object]:
    """Quality and the hashes of a file in its eight orientations, the file's own first."""
    import numpy as np
    import pdqhash
    from PIL import Image

    with Image.open(path) as image:
        hashes, quality = pdqhash.compute_dihedral(np.asarray(image.convert("RGB")))
    return [int(quality), [np.packbits(np.asarray(bits, dtype=np.uint8)).tobytes().hex() for bits in hashes]]


def pdq_folder(folder: str) -> dict[str, list[object]]:
    """Hash all files with PDQ."""
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix in (".jpg", ".png"))
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        hashes = pool.map(pdq, [str(path) for path in files], chunksize=32)
    return {path.relative_to(folder).as_posix(): value for path, value in zip(files, hashes)}  # noqa: B905


def fastdup_pairs(batches: dict[str, list[str]], threshold: float) -> dict[str, list[list[float]]]:
    """Run fastdup on each batch; its settings are its defaults except for the threshold, the lowest considered."""
    import fastdup

    pairs = {}
    for name, files in batches.items():
        place = {os.path.realpath(file): k for k, file in enumerate(files)}
        with tempfile.TemporaryDirectory() as work:
            run = fastdup.create(input_dir=files, work_dir=work)
            run.run(overwrite=True, print_summary=False, threshold=threshold)
            with open(os.path.join(work, "atrain_features.dat.csv"), newline="") as lines:
                names = {row["index"]: place[os.path.realpath(row["filename"])] for row in csv.DictReader(lines)}
            with open(os.path.join(work, "similarity.csv"), newline="") as lines:
                rows = [[names[row["from"]], names[row["to"]], float(row["distance"])] for row in csv.DictReader(lines)]
        pairs[name] = [row for row in rows if row[0] != row[1]]
    return pairs


def main() -> None:
    """Write the result."""
    method, source, target = sys.argv[1:4]
    if method == "fastdup":
        answer: object = fastdup_pairs(json.loads(Path(source).read_text()), threshold=0.5)
    else:
        answer = pdq_folder(source) if method == "pdq" else hash_folder(method, source)
    Path(target).write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
