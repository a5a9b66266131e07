"""A still and an animation that holds it: neither is dropped for the other, unless all frames are alike."""

import io

import pytest
import shared_workers
from PIL import Image, ImageFilter
from run_tables import table

from dedup.config.load import load_config


def busy(seed, size=(240, 180)):
    """A picture with as much detail as a photo."""
    import numpy as np

    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    grain = np.asarray(coarse).astype(int) + rng.integers(-40, 40, (size[1], size[0], 1))
    return Image.fromarray(np.clip(grain, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1))


def write(path, kind, frames, **options):
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=len(frames) > 1, append_images=frames[1:], **options)
    path.write_bytes(file.getvalue())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("frames")
    (folder / "in").mkdir()
    for seed in (200, 202, 204, 206):
        still, others = busy(seed), [busy(seed + 1), busy(seed + 100), busy(seed + 101)]
        write(folder / "in" / f"{seed}-still.jpg", "JPEG", [still])
        write(folder / "in" / f"{seed}-pages.tif", "TIFF", [still, others[0]])
        write(folder / "in" / f"{seed}-last.gif", "GIF", [others[0], others[1], still], duration=100)
        write(folder / "in" / f"{seed}-four.webp", "WEBP", [others[2], still, others[1], others[0]], duration=100, lossless=True)
        write(folder / "in" / f"{seed}-alike.tif", "TIFF", [still, still.copy()])
    config = load_config(None, [f"input.images={folder}/in", f"output.run_dir={folder}/run", "engine.workers=2", "report.enabled=false"])
    shared_workers.run(config)
    return folder


def test_no_frame_is_lost(folder):
    kept = {row["key"] for row in table(folder / "run", "manifest").to_pylist()}
    for seed in (200, 202, 204, 206):
        assert {f"{seed}-pages.tif", f"{seed}-last.gif", f"{seed}-four.webp"} <= kept
        assert len({f"{seed}-still.jpg", f"{seed}-alike.tif"} & kept) == 1  # alike frames are one picture
    reasons = {row["reason"] for row in table(folder / "run", "refused").to_pylist()}
    assert "frames" in reasons
