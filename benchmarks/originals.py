"""Whether the original is kept: photos with one edit each, and photos with every edit, through a whole run.

    python benchmarks/originals.py PHOTOS --n 300 --out originals-out
    python benchmarks/originals.py PHOTOS --n 50 --all-edits --out originals-out

Each photo lies in one folder with its edit (or all of them). Counted are the groups that hold an original and something else: in how many the
original is kept, by kind of edit. Copies that are not found are another benchmark's subject (`edits.py`).
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pyarrow.parquet as pq
from edit_kinds import EDITS
from edits import add_photo_arguments, opened
from lookalikes import ours
from machine import describe_machine
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont

from dedup.storage.input.samples import IMAGE_SUFFIXES

Edit = Callable[[Image.Image, Random], Image.Image]
KINDS: dict[str, Edit] = {}
_COLOURS = ("white", "black", "#c81e1e", "#f0f0e6")


def kind(make: Edit) -> Edit:
    """Register an edit under its name."""
    KINDS[make.__name__] = make
    return make


def _font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=max(8, int(size)))


def _laid_out(photo: Image.Image, size: tuple[int, int], place: tuple[int, int], ground: str) -> Image.Image:
    page = Image.new("RGB", size, ground)
    page.paste(photo, place)
    return page


@kind
def border(photo: Image.Image, rng: Random) -> Image.Image:
    """A frame of one colour."""
    depth = rng.randint(2, 8) * max(photo.size) // 100 + 2
    return _laid_out(photo, (photo.width + 2 * depth, photo.height + 2 * depth), (depth, depth), rng.choice(_COLOURS))


@kind
def letterbox(photo: Image.Image, rng: Random) -> Image.Image:
    """Black bars above and below, or at the sides."""
    depth = int(photo.height * rng.uniform(0.08, 0.25))
    if rng.random() < 0.5:
        return _laid_out(photo, (photo.width, photo.height + 2 * depth), (0, depth), "black")
    return _laid_out(photo, (photo.width + 2 * depth, photo.height), (depth, 0), "black")


@kind
def caption_bar(photo: Image.Image, rng: Random) -> Image.Image:
    """A line of news below it."""
    depth = int(photo.height * rng.uniform(0.08, 0.16))
    page = _laid_out(photo, (photo.width, photo.height + depth), (0, 0), "black")
    ImageDraw.Draw(page).text((10, photo.height + depth // 5), "Photo of the day - city news", fill="white", font=_font(depth / 2))
    return page


@kind
def meme_bar(photo: Image.Image, rng: Random) -> Image.Image:
    """Words on white above it."""
    depth = int(photo.height * rng.uniform(0.12, 0.22))
    page = _laid_out(photo, (photo.width, photo.height + depth), (0, depth), "white")
    ImageDraw.Draw(page).text((10, depth // 6), "when you see it\nat last", fill="black", font=_font(depth / 3))
    return page


@kind
def watermark(photo: Image.Image, rng: Random) -> Image.Image:
    """Words that one can see through."""
    layer = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    place, ink = (photo.width * 0.15, photo.height * rng.uniform(0.2, 0.7)), (255, 255, 255, rng.randint(90, 150))
    ImageDraw.Draw(layer).text(place, "SAMPLE stock", fill=ink, font=_font(photo.width / 8))
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


@kind
def logo(photo: Image.Image, rng: Random) -> Image.Image:
    """A sign in a corner."""
    marked, side = photo.copy(), photo.width // 7
    x, y = rng.choice([8, photo.width - side - 8]), rng.choice([8, photo.height - side - 8])
    draw = ImageDraw.Draw(marked)
    draw.ellipse((x, y, x + side, y + side), fill=rng.choice(["red", "blue", "#208020"]))
    draw.text((x + side // 5, y + side // 4), "TV", fill="white", font=_font(side / 2))
    return marked


@kind
def grey(photo: Image.Image, rng: Random) -> Image.Image:
    """Without colours."""
    return photo.convert("L").convert("RGB")


@kind
def enlarged(photo: Image.Image, rng: Random) -> Image.Image:
    """Twice as large."""
    return photo.resize((2 * photo.width, 2 * photo.height), rng.choice([Image.Resampling.BICUBIC, Image.Resampling.LANCZOS]))


@kind
def phone_frame(photo: Image.Image, rng: Random) -> Image.Image:
    """On the screen of a phone."""
    width = photo.width + 40
    height = max(2 * width, photo.height + 200)
    page = _laid_out(photo, (width, height), (20, (height - photo.height) // 2), "#0c0c0e")
    draw = ImageDraw.Draw(page)
    draw.text((30, 12), f"{rng.randint(0, 23)}:{rng.randint(10, 59)}", fill="white", font=_font(24))
    draw.rectangle((width // 2 - 60, height - 16, width // 2 + 60, height - 10), fill="white")
    return page


@kind
def blurred_sides(photo: Image.Image, rng: Random) -> Image.Image:
    """Between blurred copies of itself."""
    width = int(max(photo.height * rng.uniform(1.5, 1.9), 1.3 * photo.width))
    ground = photo.resize((width, round(width * photo.height / photo.width)))
    top = (ground.height - photo.height) // 2
    ground = ground.crop((0, top, width, top + photo.height)).filter(ImageFilter.GaussianBlur(18))
    ground.paste(photo, ((width - photo.width) // 2, 0))
    return ground


@kind
def screenshot(photo: Image.Image, rng: Random) -> Image.Image:
    """On a page."""
    return EDITS["web_page"](photo, rng)


@kind
def coarse_jpeg(photo: Image.Image, rng: Random) -> Image.Image:
    """Saved at quality 30."""
    return photo


@kind
def half_size(photo: Image.Image, rng: Random) -> Image.Image:
    """Half as wide."""
    return photo.resize((photo.width // 2, photo.height // 2), Image.Resampling.LANCZOS)


@kind
def cropped(photo: Image.Image, rng: Random) -> Image.Image:
    """80% of its sides."""
    width, height = int(photo.width * 0.8), int(photo.height * 0.8)
    x, y = rng.randint(0, photo.width - width), rng.randint(0, photo.height - height)
    return photo.crop((x, y, x + width, y + height))


NEEDED = tuple(KINDS)  # the kinds of one edit each


@kind
def brightened(photo: Image.Image, rng: Random) -> Image.Image:
    """Brighter, or darker."""
    return ImageEnhance.Brightness(photo).enhance(rng.choice([0.75, 1.3]))


@kind
def mirrored(photo: Image.Image, rng: Random) -> Image.Image:
    """Left for right."""
    return photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@kind
def turned(photo: Image.Image, rng: Random) -> Image.Image:
    """By a quarter."""
    return photo.transpose(Image.Transpose.ROTATE_90)


@kind
def saved_as_png(photo: Image.Image, rng: Random) -> Image.Image:
    """The same pixels."""
    return photo


for _name in (
    "sepia",
    "filtered",
    "meme_text",
    "post_with_text_above",
    "framed",
    "subtitles_under_a_letterbox",
    "square_part",
    "thumbnail",
):
    KINDS[_name] = EDITS[_name]
for _name in ("dark_phone_screenshot", "phone_screenshot", "square_with_blurred_ground", "jpeg_over_and_over", "high_contrast"):
    KINDS[_name] = EDITS[_name]


def file_of(name: str, photo: Image.Image, rng: Random) -> tuple[str, bytes]:
    """Suffix and bytes of an edited photo: most are saved as JPEG of quality 85 to 95, as likely larger as smaller than the original."""
    file = io.BytesIO()
    if name == "saved_as_png" or (name != "coarse_jpeg" and rng.random() < 0.15):
        photo.save(file, "PNG")
        return "png", file.getvalue()
    photo.save(file, "JPEG", quality=30 if name == "coarse_jpeg" else rng.randint(85, 95))
    return "jpg", file.getvalue()


def write_files(
    photos: list[Path], kinds: list[str], folder: Path, max_side: int, seed: int, *, all_edits: bool
) -> dict[str, tuple[int, str]]:
    """Write originals and edits; returns photo and edit by file name, '' for the original."""
    folder.mkdir(parents=True)
    made = {}
    for number, path in enumerate(photos):
        saved = io.BytesIO()
        opened(path, max_side).save(saved, "JPEG", quality=90)
        name = f"{Random(f'{seed} name {number}').randrange(10**9):09d}.jpg"  # of no order
        (folder / name).write_bytes(saved.getvalue())
        made[name] = (number, "")
        photo = Image.open(saved).convert("RGB")
        for edit in kinds if all_edits else [kinds[number % len(kinds)]]:
            rng = Random(f"{seed} {edit} {number}")
            suffix, data = file_of(edit, KINDS[edit](photo, rng), rng)
            name = f"{rng.randrange(10**9):09d}.{suffix}"
            (folder / name).write_bytes(data)
            made[name] = (number, edit)
    return made


def figures(run: Path, made: dict[str, tuple[int, str]]) -> dict[str, dict[str, int]]:
    """By edit: groups with the original and that edit, and of these those in which the original is kept."""
    kept = pq.read_table(run / "manifest", columns=["key", "component_id"]).to_pylist()
    dropped = pq.read_table(run / "duplicates", columns=["key", "component_id", "keeper_key"]).to_pylist()
    group_of = {row["key"]: row["component_id"] for row in [*kept, *dropped]}
    keepers = {row["key"] for row in kept}
    original_of = {number: name for name, (number, edit) in made.items() if not edit}
    found: dict[str, Counter[str]] = {}
    for name, (number, edit) in made.items():
        original = original_of[number]
        if edit and group_of.get(name) == group_of.get(original) is not None:
            counts = found.setdefault(edit, Counter())
            counts["found"] += 1
            counts["kept"] += original in keepers
            counts["both"] += original in keepers and name in keepers
    groups = {group_of[name] for name, (_, edit) in made.items() if not edit and list(group_of.values()).count(group_of[name]) > 1}
    whole = [original for original in original_of.values() if group_of[original] in groups]
    return {
        **{edit: dict(counts) for edit, counts in sorted(found.items())},
        "all groups": {"found": len(whole), "kept": sum(original in keepers for original in whole)},
    }


def markdown(found: dict[str, dict[str, int]]) -> str:
    """A row for each edit."""
    lines = ["| edit | groups | original kept | share |", "| --- | --- | --- | --- |"]
    for edit, counts in found.items():
        share = counts["kept"] / max(1, counts["found"])
        lines.append(f"| {edit.replace('_', ' ')} | {counts['found']} | {counts['kept']} | {share:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Make the files, run, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("originals-out"), help="files, run and originals.json go here")
    parser.add_argument("--all-edits", action="store_true", help="every edit of each photo, in one group")
    add_photo_arguments(parser, n=300)
    parser.add_argument("settings", nargs="*", help="of the run: key=value")
    options = parser.parse_intermixed_args()
    paths = sorted(path for path in options.photos.rglob("*") if path.suffix[1:].lower() in IMAGE_SUFFIXES)
    Random(options.seed).shuffle(paths)
    kinds = options.kinds.split(",") if options.kinds else list(KINDS if options.all_edits else NEEDED)
    scratch, folder = options.out / "scratch", options.out / "files"
    for old in (scratch, folder):
        shutil.rmtree(old, ignore_errors=True)
    scratch.mkdir(parents=True)
    made = write_files(paths[: options.n], kinds, folder, options.max_side, options.seed, all_edits=options.all_edits)
    (options.out / "files.json").write_text(json.dumps(made))
    ours(folder, scratch, options.settings)
    found = figures(scratch / "run", made)
    report = {"machine": describe_machine(), "seed": options.seed, "n_photos": min(options.n, len(paths)), "figures": found}
    (options.out / "originals.json").write_text(json.dumps(report, indent=1))
    print(markdown(found))


if __name__ == "__main__":
    main()
