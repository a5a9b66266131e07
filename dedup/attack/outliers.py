"""Images that lie far from all others in the embedding space: the second kind of attack targets.

Carlini et al. (2023), section 4.2: a model memorises what it sees often, and what resembles nothing else. Outlierness is the mean
distance to the k nearest neighbours (Ramaswamy et al. 2000, Angiulli and Pizzuti 2002); the density ratio divides it by that of
the neighbours, which is the local outlier factor (Breunig et al. 2000) without its reachability distances.

The mean distance to any k neighbours is an upper bound of the mean over the nearest ones. So inverted lists bound every image, and
only those with the largest bounds are compared with all others (the order of Bay and Schwabacher 2003).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from dedup.contracts import Engine, GroupRows, JsonDict, Pack, Progress, Reporter, SilentReporter, Table, reported
from dedup.engines.local import engine_or_own
from dedup.errors import InputError, RunDirectoryError
from dedup.numerics.arraytypes import Ids, Rows16, Sims
from dedup.numerics.search.exhaustive import mean_distances, nearest_neighbors
from dedup.numerics.search.lists import count_lists, pack_lists
from dedup.runs.directory import Run
from dedup.schemas import IMAGES, NEIGHBOR_MEANS, NEIGHBOR_PAIRS, OUTLIERS
from dedup.stages.index.members import Members, save_members
from dedup.storage.arrays import read_rows, save_array
from dedup.storage.atomic import write_bytes, write_json
from dedup.storage.tables import FileWriter, ask, clear, dataset, read_table
from dedup.storage.urls import filesystem, join, read_json

By = Literal["mean", "ratio"]
_Neighbors = tuple[Ids, Ids, Sims]  # images, their neighbours, similarities
_COUNTS = "(SELECT component_id, count(*) AS duplication_count FROM groups GROUP BY component_id) AS counts"

ROWS_SQL = {
    # image_id: the sample whose vector is in the lists
    False: """
    SELECT manifest.*, COALESCE(exact.representative_id, manifest.sample_id) AS image_id
    FROM manifest LEFT JOIN exact ON manifest.sample_id = exact.sample_id
    """,
    True: f"""
    SELECT metadata.*, metadata.sample_id AS image_id, COALESCE(groups.component_id, metadata.sample_id) AS component_id,
           COALESCE(counts.duplication_count, CAST(1 AS BIGINT)) AS duplication_count
    FROM representatives
    JOIN metadata ON representatives.sample_id = metadata.sample_id
    LEFT JOIN groups ON metadata.sample_id = groups.sample_id
    LEFT JOIN {_COUNTS} ON groups.component_id = counts.component_id
    """,  # noqa: S608 (names of our own columns only)
}

IMAGES_SQL = "SELECT image_id, min(sample_id) AS sample_id FROM ({rows}) AS kept GROUP BY image_id ORDER BY image_id"

BOUNDS_SQL = """
SELECT images.image_id AS image_id, COALESCE(means.mean_distance, CAST({opposite} AS DOUBLE)) AS mean_distance,
       means.nearest_id AS nearest_id, means.nearest_similarity AS nearest_similarity, COALESCE(means.is_exact, FALSE) AS is_exact
FROM images LEFT JOIN means ON images.image_id = means.image_id
ORDER BY image_id
"""

RATIOS_SQL = """
SELECT pairs.image_id AS image_id, own.mean_distance / NULLIF(avg(other.mean_distance), 0) AS density_ratio
FROM pairs
JOIN bounds AS own ON pairs.image_id = own.image_id
JOIN bounds AS other ON pairs.neighbor_id = other.image_id
GROUP BY pairs.image_id, own.mean_distance
"""

LARGEST_SQL = {
    "mean": "SELECT image_id, mean_distance AS value FROM bounds ORDER BY value DESC NULLS LAST, image_id LIMIT {n}",
    "ratio": "SELECT image_id, density_ratio AS value FROM ({ratios}) AS found ORDER BY value DESC NULLS LAST, image_id LIMIT {n}",
}

BEST_KNOWN_SQL = {
    "means": """
    SELECT * FROM exact_means
    UNION ALL
    SELECT bounds.* FROM bounds LEFT JOIN exact_means ON bounds.image_id = exact_means.image_id WHERE exact_means.image_id IS NULL
    """,
    "pairs": """
    SELECT * FROM exact_pairs
    UNION ALL
    SELECT pairs.* FROM pairs LEFT JOIN exact_means ON pairs.image_id = exact_means.image_id WHERE exact_means.image_id IS NULL
    """,
}

OUTLIERS_SQL = """
SELECT ranked.place AS rank, substr(kept.sha256, 1, 16) AS target_id, ranked.sample_id AS sample_id, kept.component_id AS component_id,
       kept.duplication_count AS duplication_count, kept.caption AS caption, kept.url AS url, kept.shard AS shard, kept.key AS key,
       kept.byte_offset AS byte_offset, kept.n_bytes AS n_bytes, kept.quality AS quality, ranked.outlierness AS outlierness,
       ranked.density_ratio AS density_ratio, nearest.sample_id AS nearest_id, ranked.nearest_similarity AS nearest_similarity,
       ranked.is_exact AS is_exact
FROM (
  SELECT found.*, row_number() OVER (ORDER BY CAST(is_exact AS INTEGER) DESC NULLS LAST, {by} DESC NULLS LAST,
                                     sample_id ASC NULLS LAST) AS place
  FROM (
    SELECT images.sample_id AS sample_id, CAST(bounds.mean_distance AS FLOAT) AS outlierness,
           CAST(ratios.density_ratio AS FLOAT) AS density_ratio, bounds.nearest_id AS nearest_image,
           bounds.nearest_similarity AS nearest_similarity, bounds.is_exact AS is_exact
    FROM bounds
    JOIN images ON bounds.image_id = images.image_id
    LEFT JOIN ({ratios}) AS ratios ON bounds.image_id = ratios.image_id
  ) AS found
) AS ranked
JOIN ({rows}) AS kept ON ranked.sample_id = kept.sample_id
LEFT JOIN images AS nearest ON ranked.nearest_image = nearest.image_id
WHERE ranked.place <= {top}
ORDER BY ranked.place
"""

BLOCK = 16_384  # vectors read at a time
QUERIES = 2_048  # of a task at most
_SAMPLED = 500  # images that the recall of the lists is measured on
_PRODUCTS = 2e13  # multiply-adds that comparing with every image may cost: minutes on two cores
_SPARE = 2  # times `top`: images that are compared with every other by default
_OPPOSITE = 2.0  # distance of an image without neighbours


@dataclass(frozen=True)
class OutlierOptions:
    """What counts as an outlier, and how many to write: all but the last as in `find_outliers`."""

    top: int = 10_000
    by: By = "mean"
    n_neighbors: int = 10
    with_duplicates: bool = False
    refine: int = -1
    exhaustive_below: int = 50_000  # with fewer images every pair is compared


@dataclass(frozen=True)
class OutlierSummary:
    """What was searched, and how well."""

    out: str
    n_images: int  # images that were compared
    n_outliers: int  # rows written
    n_exact: int  # images compared with every other
    # first ranks that no image outside the comparison can take: ranked by mean, those whose outlierness is at least the largest bound of
    # an image that was not compared with every other. None for ratios, unless everything was compared.
    n_certain: int | None
    recall: float | None  # share of the true neighbours of sampled images that the inverted lists found; None where they were not used
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class NeighborTables:
    """Tables of neighbours and their means."""

    pairs: Table
    means: Table

    @classmethod
    def at(cls, folder: str, prefix: str) -> NeighborTables:
        """Tables of this folder that are not written yet."""
        return cls(Table(join(folder, f"{prefix}-pairs"), NEIGHBOR_PAIRS), Table(join(folder, f"{prefix}-means"), NEIGHBOR_MEANS))

    def write(self, number: int, rows: Iterable[_Neighbors], *, is_exact: bool) -> int:
        """Write one file of each; returns the number of images."""
        name, n_rows = f"part-{number:05d}.parquet", 0
        with (
            FileWriter(join(self.pairs.path, name), NEIGHBOR_PAIRS) as pairs,
            FileWriter(join(self.means.path, name), NEIGHBOR_MEANS) as means,
        ):
            for ids, neighbors, similarity in rows:
                is_found = neighbors >= 0
                pairs.write(pa.table({"image_id": np.repeat(ids, is_found.sum(axis=1)), "neighbor_id": neighbors[is_found]}))
                nearest = {"nearest_id": pa.array(neighbors[:, 0], mask=~is_found[:, 0])}
                nearest["nearest_similarity"] = pa.array(similarity[:, 0], mask=~is_found[:, 0])
                mean = {"image_id": ids, "mean_distance": mean_distances(similarity)} | nearest
                means.write(pa.table(mean | {"is_exact": pa.repeat(is_exact, len(ids))}))
                n_rows += len(ids)
        return n_rows


def find_outliers(
    run_dir: str,
    out: str = "",
    *,
    top: int = 10_000,
    by: By = "mean",
    n_neighbors: int = 10,
    with_duplicates: bool = False,
    refine: int = -1,
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> OutlierSummary:
    """Rank the images of a finished run by their distance from all others in its embedding space.

    Parameters
    ----------
    run_dir : str
    out : str
        Folder for the table `dedup.schemas.OUTLIERS` and `_outliers.jsonl`; by default `outliers/` of the run.
    top : int
        Images to write.
    by : {"mean", "ratio"}
        Rank by outlierness, the mean of 1 - cosine over the nearest neighbours; or by that mean divided by the mean outlierness of those
        neighbours, which finds images that stand out from their own surroundings.
    n_neighbors : int
    with_duplicates : bool
        Compare all distinct images. By default only those that the manifest keeps, so that copies of an image do not hide it.
    refine : int
        Images to compare with every other when inverted lists are used; -1 = twice `top`, fewer if that would take long.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    RunDirectoryError
        If the run is not finished, or `out` holds other files.
    InputError
        If there are fewer than two images.

    Notes
    -----
    Up to 50,000 images every pair is compared. Beyond, each image is compared within its nearest inverted list, which bounds its
    outlierness from above; those with the largest bounds are then compared with every other image. `OutlierSummary` holds how many
    of the first ranks are thereby certain, and the lists' recall. After Carlini et al. (2023), section 4.2.
    """
    options = OutlierOptions(top, by, n_neighbors, with_duplicates, refine)
    with engine_or_own(engine) as engine:
        return rank_images(run_dir, out or join(run_dir, "outliers"), options, engine, reporter or SilentReporter())


def rank_images(run_dir: str, out: str, options: OutlierOptions, engine: Engine, reporter: Reporter) -> OutlierSummary:
    """Rank the images of a run by outlierness, and write the top ones."""
    if options.top < 1 or options.n_neighbors < 1 or options.by not in LARGEST_SQL:
        raise InputError(f"expected top >= 1, n_neighbors >= 1 and by = mean or ratio, found {vars(options)}")
    run, output = Run.open(run_dir), Table(out, OUTLIERS)
    run.up_to_date("manifest")
    names = ("representatives", "metadata", "groups") if options.with_duplicates else ("manifest", "exact")
    sources, rows = {name: run.table(name) for name in names}, ROWS_SQL[options.with_duplicates]
    _begin(out, output, {"run": run_dir, "options": vars(options)})
    with engine.scratch() as scratch:
        images = Table(join(scratch, "images"), IMAGES)
        engine.sql_to(IMAGES_SQL.format(rows=rows), sources, images)
        ids = np.sort(read_table(images, ["image_id"])["image_id"].to_numpy())
        if len(ids) < 2:
            raise InputError(f"{run_dir} holds {len(ids)} distinct images; outliers need at least 2")
        search = _Search(run, options, engine, reporter, scratch, ids, images)
        neighbors, summary = _find_neighbors(search, out)
        by = {"mean": "outlierness", "ratio": "density_ratio"}[options.by]
        query = OUTLIERS_SQL.format(rows=rows, ratios=RATIOS_SQL, top=options.top, by=by)
        tables = sources | {"images": images, "bounds": neighbors.means, "pairs": neighbors.pairs}
        n_rows = engine.sql_to(query, tables, output)
    n_certain = None if summary.n_certain is None else min(summary.n_certain, n_rows)
    summary = replace(summary, n_outliers=n_rows, n_certain=n_certain)
    lines = io.BytesIO()
    for batch in dataset(output).to_batches(batch_size=4_096):
        lines.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in batch.to_pylist())
    write_bytes(join(out, "_outliers.jsonl"), lines.getvalue())
    write_json(join(out, "_summary.json"), {name: value for name, value in vars(summary).items() if name != "out"})
    return summary


def _begin(out: str, output: Table, identity: JsonDict) -> None:
    """Clear what an earlier search wrote, or stop if the folder holds anything else."""
    fs, path = filesystem(out)
    if fs.exists(path) and fs.ls(path) and read_json(join(out, "_outliers.json")) is None:
        raise RunDirectoryError(f"{out} holds other files; choose another --out, a folder that is empty or does not exist")
    clear(output)
    write_json(join(out, "_outliers.json"), identity)


def _find_neighbors(search: _Search, out: str) -> tuple[NeighborTables, OutlierSummary]:
    """Neighbours of all images, exact where it matters and from the lists elsewhere; of the summary all but `n_outliers`."""
    ids, options, reporter = search.ids, search.options, search.reporter
    n, nlist = len(ids), int(search.run.index_facts.get("nlist", 1))
    if n < options.exhaustive_below or nlist < 2 or n <= options.refine:
        note = f"outliers: every pair of {n:,} images is compared"
        reporter.note(note)
        return search.exhaustive(ids), OutlierSummary(out, n, 0, n, n, None, [note])
    listed = search.in_lists()
    dim = search.run.read_vectors(ids[:1]).shape[1]
    n_refined = options.refine if options.refine >= 0 else min(_SPARE * options.top, int(_PRODUCTS / (n * dim)))
    candidates, bound_of_rest = search.largest(listed, min(n_refined, n))
    sampled = np.sort(np.random.default_rng(0).choice(ids, min(_SAMPLED, n), replace=False))
    refined = np.union1d(candidates, sampled)
    note = f"outliers: {n:,} images were compared within {nlist:,} inverted lists, {len(refined):,} of them with every other"
    reporter.note(note)
    exact = search.exhaustive(refined)
    n_certain = None
    if options.by == "mean":
        n_certain = int((dataset(exact.means).to_table(columns=["mean_distance"])["mean_distance"].to_numpy() >= bound_of_rest).sum())
    recall = _recall(listed.pairs, exact.pairs, sampled)
    return search.best_known(listed, exact), OutlierSummary(out, n, 0, len(refined), n_certain, recall, [note])


def _recall(listed: Table, exact: Table, sampled: Ids) -> float:
    """Share of the true neighbours of sampled images that the lists found."""
    listed_pairs, true_pairs = _pairs_of(listed, sampled), _pairs_of(exact, sampled)
    return len(listed_pairs & true_pairs) / max(len(true_pairs), 1)


def _pairs_of(table: Table, images: Ids) -> set[tuple[int, int]]:
    rows = dataset(table).to_table(columns=NEIGHBOR_PAIRS.names, filter=ds.field("image_id").isin(images.tolist()))
    return set(zip(rows["image_id"].to_pylist(), rows["neighbor_id"].to_pylist(), strict=True))


@dataclass
class _Search:
    """A search for outliers: what it reads, where it writes."""

    run: Run
    options: OutlierOptions
    engine: Engine
    reporter: Reporter
    scratch: str
    ids: Ids
    images: Table

    @property
    def k(self) -> int:
        """Neighbours per image, fewer if the run has too few images."""
        return min(self.options.n_neighbors, len(self.ids) - 1)

    def exhaustive(self, queries: Ids) -> NeighborTables:
        """Compare images with every other."""
        tables, url = NeighborTables.at(self.scratch, "exact"), join(self.scratch, "image_id.npy")
        save_array(url, self.ids)
        size = max(1, min(QUERIES, -(-len(queries) // (4 * self.engine.n_workers))))
        tasks = [
            ExhaustiveTask(number, self.run, url, len(self.ids), queries[start : start + size], self.k, tables)
            for number, start in enumerate(range(0, max(len(queries), 1), size))
        ]
        results = self.engine.map_partitions(compare_with_all, tasks)
        for _ in reported(results, [len(task.queries) for task in tasks], self.reporter, "outliers", "images"):
            pass
        return tables

    def in_lists(self) -> NeighborTables:
        """Compare each image within its nearest list; images without a neighbour there get the largest bound."""
        nearest = NeighborTables.at(self.scratch, "listed")
        all_ids = read_table(self.run.table("representatives"), ["sample_id"])["sample_id"].to_numpy()
        is_compared = np.isin(all_ids, self.ids, assume_unique=True)
        lists_per_image = max(1, int(self.run.index_facts.get("nprobe", 1)))
        folder = join(self.scratch, "members")
        unused = np.zeros(len(all_ids), np.float32)
        save_members(folder, {"sample_id": all_ids, "weight": is_compared.astype(np.int64), "min_similarity": unused})
        members = Members(self.run, folder, len(all_ids), lists_per_image, is_projected=False)
        sizes = count_lists(members.groups(block) for block in range(len(members.block_sizes)))
        packs = pack_lists(sizes, self.engine.n_workers)
        done = 0
        self.reporter.progress(Progress("lists", 0, len(self.ids), "images"))
        for _, n in self.engine.map_groups(members, CompareInLists(self.k, nearest), packs):
            done += n
            self.reporter.progress(Progress("lists", done, len(self.ids), "images"))
        bounds = Table(join(self.scratch, "bounds"), NEIGHBOR_MEANS)
        tables = {"images": self.images, "means": nearest.means}
        self.engine.sql_to(BOUNDS_SQL.format(opposite=_OPPOSITE), tables, bounds)
        return NeighborTables(nearest.pairs, bounds)

    def largest(self, listed: NeighborTables, n: int) -> tuple[Ids, float]:
        """The images with the n largest bounds, or ratios, and the largest value of the others."""
        query = LARGEST_SQL[self.options.by].format(n=n + 1, ratios=RATIOS_SQL)
        tables = {"bounds": listed.means} | ({"pairs": listed.pairs} if self.options.by == "ratio" else {})
        schema = pa.schema([("image_id", pa.int64()), ("value", pa.float64())])
        rows = ask(self.engine, query, tables, schema)
        bound_of_rest = float(rows["value"][n].as_py() or 0.0) if len(rows) > n else -np.inf
        return rows["image_id"].to_numpy()[:n], bound_of_rest

    def best_known(self, listed: NeighborTables, exact: NeighborTables) -> NeighborTables:
        """Exact values where there are any, those of the lists elsewhere."""
        best = NeighborTables.at(self.scratch, "all")
        tables = {"bounds": listed.means, "exact_means": exact.means}
        self.engine.sql_to(BEST_KNOWN_SQL["means"], tables, best.means)
        tables = {"pairs": listed.pairs, "exact_pairs": exact.pairs, "exact_means": exact.means}
        self.engine.sql_to(BEST_KNOWN_SQL["pairs"], tables, best.pairs)
        return best


@dataclass(frozen=True)
class ExhaustiveTask:
    """Images to compare with every other; `ids` is the file that lists all of them."""

    number: int
    run: Run
    ids: str
    n: int
    queries: Ids
    k: int
    output: NeighborTables


def compare_with_all(task: ExhaustiveTask) -> int:
    """Find the nearest neighbours of some images among all; returns the number of images."""

    def blocks() -> Iterator[tuple[Ids, Rows16]]:
        for start in range(0, task.n, BLOCK):
            ids = read_rows(task.ids, start, min(start + BLOCK, task.n))
            yield ids, task.run.read_vectors(ids)

    neighbors, similarity = nearest_neighbors(task.run.read_vectors(task.queries), task.queries, blocks(), task.k)
    return task.output.write(task.number, [(task.queries, neighbors, similarity)], is_exact=True)


@dataclass(frozen=True)
class CompareInLists:
    """Compares each image with those of its nearest list."""

    k: int
    output: NeighborTables

    def __call__(self, pack: Pack, groups: Iterator[tuple[int, GroupRows]]) -> int:
        """Find neighbours within each list; returns the number of images that have it as their nearest."""
        rows = (part for number, group in groups for part in self._of_list(pack, number, group))
        return self.output.write(pack.number, rows, is_exact=False)

    def _of_list(self, pack: Pack, number: int, group: GroupRows) -> Iterator[_Neighbors]:
        compared = np.flatnonzero(group.column("weight") > 0)
        at_home = compared[group.groups[compared, 0] == number][pack.share :: pack.n_shares]
        ids, vectors = group.column("sample_id"), group.view("vector")
        for start in range(0, len(at_home), QUERIES):
            queries = at_home[start : start + QUERIES]
            parts = (compared[first : first + BLOCK] for first in range(0, len(compared), BLOCK))
            blocks = ((ids[part], vectors[part]) for part in parts)
            yield ids[queries], *nearest_neighbors(vectors[queries], ids[queries], blocks, self.k)
