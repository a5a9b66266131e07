"""The figures of a report: accounts, counts by size, kinds, reasons, similarities, captions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from dedup.numerics.graph.originality import EDITS
from dedup.report import queries
from dedup.report.below import BelowSample
from dedup.report.charts import Chart, Series, histogram, log_log
from dedup.report.queries import Row, TableReader
from dedup.runs.directory import Run
from dedup.schemas import REJECT_REASONS
from dedup.storage.tables import dataset
from dedup.text import counted, cut, key_text, shard_name, share_text

SIMILARITY_BINS = 200  # from 0 to 1
_DISTANCE_BINS = 100
_REJECTED_SHOWN = 5  # of each reason
_CAPTIONS_SHOWN = 100
_SHARDS_SHOWN = 50
SOURCES = {
    "whole": "the embeddings of the whole pictures",
    "look": "views: a crop, the picture inside a frame, a turned copy",
    "also": "the second source of candidates",
    "also_look": "views of the second source",
    "group": "two members of a group",
    "embedding": "equal embeddings",
}


@dataclass(frozen=True)
class Part:
    """A part of a whole, as a bar."""

    kind: str  # class in the style sheet
    name: str
    n: int
    share: str
    x: float  # of its bar, in per mille of the whole, like its width
    width: float


def parts(counts: list[tuple[str, str, int]], *, is_stacked: bool = True) -> list[Part]:
    """Parts of a whole, one bar after another; or each from the left, the largest over the full width."""
    whole = sum(n for _, _, n in counts)
    largest = max((n for _, _, n in counts), default=0)
    bars, x = [], 0.0
    for kind, name, n in counts:
        width = 1000.0 * n / ((whole if is_stacked else largest) or 1)
        bars.append(Part(kind, name, n, share_text(n, whole), round(x, 2), round(width, 2)))
        x += width if is_stacked else 0.0
    return bars


def accounts(run: Run) -> list[Part]:
    """All samples of the input, by what became of them."""
    rows, dropped = run.records["manifest"].rows, run.records["manifest"].summary
    unique = run.records["statistics"].summary.get("n_unique") if "statistics" in run.records else None
    kept = rows["manifest"]
    # unique samples may be excluded, and are counted there
    n_unique = None if unique is None else max(0, min(kept, unique - rows.get("excluded", 0)))
    counts = [("keeper", "kept", kept)]
    thinned = [("below", f"dropped, of further {kind}s", dropped.get(f"n_{kind}", 0)) for kind in ("template", "scene")]
    if n_unique is not None and not rows.get("excluded") and not any(n for *_, n in thinned):
        counts = [("unique", "kept, without a copy", n_unique), ("keeper", "kept of a group of copies", kept - n_unique)]
    counts += [
        ("near", "dropped, near copies", dropped["n_near"]),
        ("exact", "dropped, byte-identical copies", dropped["n_exact"]),
        *thinned,
        ("excluded", "excluded", rows.get("excluded", 0)),
        ("rejected", "rejected", run.records["embed"].rows["rejected"]),
    ]
    return parts([count for count in counts if count[2]])


def tiles(run: Run, n_refused: int) -> list[tuple[str, str, str]]:
    """The figures that come first: (name, figure, what it means)."""
    embed, manifest = run.records["embed"], run.records["manifest"]
    n = embed.rows["metadata"] + embed.rows["rejected"]
    dropped, images = manifest.rows["duplicates"], embed.rows["metadata"]
    figures = [
        ("samples", f"{n:,}", f"in {counted(embed.summary.get('n_shards', 0), run.config.input.source_noun)}"),
        ("kept", f"{manifest.rows['manifest']:,}", f"{share_text(manifest.rows['manifest'], n)} of all"),
        ("dropped", f"{dropped:,}", f"{share_text(dropped, images)} of the images, as copies"),
    ]
    if "statistics" in run.records:
        statistics = run.records["statistics"].summary
        figures.append(("groups", f"{statistics['n_components']:,}", f"of copies, the largest of {statistics['largest_component']:,}"))
    if n_judged := run.records["confirm"].summary.get("n_judged"):
        figures.append(("pairs refused", f"{n_refused:,}", f"of {n_judged:,} judged"))
    summary = run.records["pairs"].summary
    if (recall := summary.get("recall")) is not None:
        measured = f"of {summary['recall_pairs']:,} pairs of {summary['recall_queries']:,} images"
        figures.append(("measured recall", f"{recall:.4f}", measured))
    if manifest.rows.get("excluded"):
        figures.append(("excluded", f"{manifest.rows['excluded']:,}", "near a reference image, or on a list"))
    figures.append(("rejected", f"{embed.rows['rejected']:,}", "can't be read"))
    return figures


def sizes(run: Run) -> tuple[Chart, list[Row]]:
    """Groups by size: the chart, and a table of powers of two."""
    points: list[tuple[int, int]] = []
    doubled: dict[int, list[int]] = {}
    for batch in dataset(run.table("histogram")).to_batches():
        for row in batch.to_pylist():
            count, n_groups = row["duplication_count"], row["n_components"]
            points.append((count, n_groups))
            so_far = doubled.setdefault((count - 1).bit_length(), [0, 0])
            so_far[0], so_far[1] = so_far[0] + n_groups, so_far[1] + row["n_images"]
    n_images = sum(images for _, images in doubled.values())
    table = []
    for power, (n_groups, images) in sorted(doubled.items()):
        first, last = (1, 1) if not power else ((1 << (power - 1)) + 1, 1 << power)
        name = f"{first:,}" if first == last else f"{first:,} to {last:,}"
        table.append({"first": first, "name": name, "n_groups": n_groups, "n_images": images, "share": share_text(images, n_images)})
    chart = log_log(
        sorted(points),
        label="how many groups of copies there are of each size",
        x_title="samples in the group (1 = unique)",
        y_title="groups",
        tooltip="{y} groups of {x}",
    )
    return chart, table


def kinds(reader: TableReader, run: Run) -> tuple[list[Part], list[Row]]:
    """Dropped samples by kind, and the pairs that joined them by how they were found and turned."""
    summary = run.records["manifest"].summary
    counts = [("near", "near copies", summary["n_near"]), ("exact", "byte-identical copies", summary["n_exact"])]
    thinned = [("below", f"of further {kind}s", summary.get(f"n_{kind}", 0)) for kind in ("template", "scene")]
    dropped = parts([*counts, *(count for count in thinned if count[2])])
    return dropped, [row | {"means": SOURCES.get(row["source"], "")} for row in reader.rows(queries.KINDS)]


def edits(reader: TableReader, run: Run) -> list[Row]:
    """What was done to copies: samples by edit, with what it means."""
    if not run.records["manifest"].rows.get("edit_counts"):
        return []
    rows = reader.rows(queries.EDIT_COUNTS)
    bars = parts([("near", str(row["edit"]), row["n_samples"]) for row in rows], is_stacked=False)
    return [row | {"means": EDITS.get(row["edit"], ""), "part": bar} for row, bar in zip(rows, bars, strict=True)]


@dataclass(frozen=True)
class Reason:
    """A reason with its number and examples."""

    name: str
    means: str
    part: Part
    examples: list[Row]


def rejected(reader: TableReader) -> list[Reason]:
    """Rejected samples by reason, with the first few of each."""
    rows = reader.rows(queries.REJECTED, n=_REJECTED_SHOWN)
    for row in rows:
        row |= {"key": key_text(row["key"]), "shard": shard_name(row["shard"]), "detail": cut(row["detail"])}
    return reasons_of(rows, REJECT_REASONS, "rejected")


def reasons_of(rows: list[Row], meanings: dict[str, str], kind: str) -> list[Reason]:
    """Reasons, the most frequent first, with their rows as examples; each row has `reason` and `n_all`."""
    counts = {row["reason"]: row["n_all"] for row in rows}
    bars = parts([(kind, reason, n) for reason, n in counts.items()], is_stacked=False)
    return [Reason(bar.name, meanings.get(bar.name, ""), bar, [row for row in rows if row["reason"] == bar.name]) for bar in bars]


@dataclass(frozen=True)
class Bins:
    """Pairs by similarity and by the distance of their pixels: bin to number."""

    joined: dict[int, int]
    refused: dict[int, int]
    joined_distance: dict[int, int]
    refused_distance: dict[int, int]


def bins(reader: TableReader) -> Bins:
    """Count the pairs that were joined and refused."""
    counts: dict[str, dict[int, int]] = {}
    for row in reader.rows(queries.BINS, similarity_bins=SIMILARITY_BINS, distance_bins=_DISTANCE_BINS):
        counts.setdefault(row["what"], {})[row["bin"]] = row["n_pairs"]
    return Bins(*(counts.get(what, {}) for what in ("joined", "refused", "joined distance", "refused distance")))


def similarities(counts: Bins, run: Run, below: BelowSample | None) -> tuple[Chart, Chart | None]:
    """The judged pairs by similarity; and all pairs of sampled images, across the threshold."""
    threshold = run.config.search.min_similarity
    lines = [(threshold, f"threshold {threshold:g}")]
    chart = partial(histogram, n_bins=SIMILARITY_BINS, low=lowest_shown(threshold), high=1.0, lines=lines, x_title="similarity")
    refused = [Series("refused", "refused", counts.refused)] if run.judges_pixels else []
    label = "similarity of the pairs that were joined and refused"
    judged = chart([Series("near", "joined", counts.joined), *refused], label=label, y_title="pairs")
    if below is None or not below.n_queries:
        return judged, None
    edge = int(threshold * SIMILARITY_BINS + 1e-4)
    values = {number: int(n) for number, n in enumerate(below.bins) if n}
    series = [
        Series("below", "below the threshold", {number: n for number, n in values.items() if number < edge}),
        Series("near", "candidates", {number: n for number, n in values.items() if number >= edge}),
    ]
    label = "similarity of all pairs of a sample of images, on a logarithmic axis"
    return judged, chart(series, label=label, y_title="pairs of the sample", is_log=True)


def lowest_shown(threshold: float) -> float:
    """Where the axis of similarities begins: below the threshold by half of what is above it, and by 0.05 at least."""
    return max(0.0, round(threshold - max(0.05, 0.5 * (1.0 - threshold)), 2))


def distances(counts: Bins, run: Run) -> tuple[Chart | None, int]:
    """Pairs by the distance of their pixels, and how many were refused before a distance could be measured."""
    near, refused = counts.joined_distance, {bin_: n for bin_, n in counts.refused_distance.items() if bin_ < _DISTANCE_BINS}
    n_unmeasured = counts.refused_distance.get(_DISTANCE_BINS, 0)
    if not near and not refused:
        return None, n_unmeasured
    most = run.config.confirm.max_distance
    high = min(0.99, max(*near, *refused, round(2 * most * _DISTANCE_BINS)) / _DISTANCE_BINS)
    chart = histogram(
        [Series("near", "confirmed", near), Series("refused", "refused", refused)],
        n_bins=_DISTANCE_BINS,
        low=0.0,
        high=high,
        lines=[(most, f"confirm.max_distance {most:g}")],
        label="distance of the pixels of the pairs that were confirmed and refused",
        x_title="distance of the pixels",
        y_title="pairs",
    )
    return chart, n_unmeasured


def captions(reader: TableReader) -> list[Row]:
    """The captions that most samples carry."""
    rows = reader.rows(queries.CAPTIONS, n=_CAPTIONS_SHOWN)
    return [row | {"caption": cut(row["caption"], row["n_characters"])} for row in rows]


def broken_shards(reader: TableReader) -> tuple[dict[str, int], list[Row]]:
    """How many shards could not be read whole, by status, and the first of each."""
    rows = reader.rows(queries.SHARDS, n=_SHARDS_SHOWN)
    return {row["status"]: row["n_all"] for row in rows}, [
        row | {"shard": shard_name(row["shard"]), "error": cut(row["error"])} for row in rows
    ]
