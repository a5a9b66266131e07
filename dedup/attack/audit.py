"""Scoring and flagging generated images, finding outliers, and reports, from paths to tables: what the command line and notebooks call."""

from __future__ import annotations

from collections.abc import Sequence

from dedup.attack.outliers import By, OutlierOptions, OutlierSummary, find
from dedup.attack.score import ScoreSummary, read_targets, score
from dedup.config import ExtractionConfig
from dedup.contracts import Engine, Reporter
from dedup.engines.local import engine_or_own
from dedup.find.flag import FlagSummary, Question, flag
from dedup.report.build import ReportSummary, write
from dedup.stages.stage import SilentReporter
from dedup.storage.urls import join


def score_generations(
    targets: str,
    generations: str,
    out: str,
    *,
    options: ExtractionConfig | None = None,
    device: str = "auto",
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> ScoreSummary:
    """Tell which targets a model has memorised, and which training images came out of it.

    Parameters
    ----------
    targets : str
        A run's `targets/` folder, through which its tars and groups are found, or parquet with the same columns.
    generations : str
        Folder with `TARGET_ID/*.png`, or with webdataset tars whose json has a `target_id`.
    out : str
        Folder for the table `dedup.schemas.SCORES`, a row per target in the order of the list. A run that was stopped goes on
        with the parts that are missing.
    options : ExtractionConfig
    device : str
        Where distances of all pairs are computed: cpu, cuda; auto = cuda where torch finds a GPU.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    InputError
        If targets or generations can't be read.
    RunDirectoryError
        If `out` holds scores of other targets, generations or options.

    Notes
    -----
    After Carlini et al. (2023), "Extracting Training Data from Diffusion Models", sections 4 and 5.
    """
    with engine_or_own(engine) as engine:
        return score(read_targets(targets), generations, out, options or ExtractionConfig(), device, engine, reporter or SilentReporter())


def flag_images(
    run_dir: str,
    images: Sequence[str],
    out: str,
    *,
    k: int = 10,
    min_similarity: float | None = None,
    judge_pixels: bool = True,
    overrides: Sequence[str] = (),
    engine: Engine | None = None,
    reporter: Reporter | None = None,
) -> FlagSummary:
    """Tell which generated images are copies of training images.

    Parameters
    ----------
    run_dir : str
        A finished run over the training images.
    images : sequence of str
        Images, folders of images, tars.
    out : str
        Parquet file of `dedup.schemas.FLAGS`, a row for each image.
    k : int
        Training images that each is compared with.
    min_similarity : float, optional
        Cosine from which training images are compared; the run's own by default.
    judge_pixels : bool
        False: similarity alone decides.
    overrides : sequence of str
        As of `dedup.open_index`.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    RunDirectoryError
        If the run can't be searched.
    InputError
        If there is no such image, folder or tar.
    """
    question = Question(run_dir, tuple(overrides), "auto", k, min_similarity, judge_pixels, measures=judge_pixels)
    with engine_or_own(engine) as engine:
        return flag(question, images, out, engine, reporter or SilentReporter())


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
    """Rank the images of a finished run by how far they lie from all others in its embedding space.

    Parameters
    ----------
    run_dir : str
    out : str
        Folder for the table `dedup.schemas.OUTLIERS` and `_outliers.jsonl`; by default `outliers/` of the run.
    top : int
        Images to write.
    by : {"mean", "ratio"}
        Rank by outlierness, the mean of 1 - cosine over the nearest neighbours; or by that mean divided by the mean outlierness of those
        neighbours, which finds what lies apart from its own surroundings.
    n_neighbors : int
    with_duplicates : bool
        Compare all distinct images. By default only those that the manifest keeps, so that copies of one image do not hide it.
    refine : int
        Images that are compared with every other where inverted lists are used; -1 = twice `top`, fewer where that takes long.
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
    outlierness from above; those with the largest bounds are then compared with every other image. `OutlierSummary` tells how many of the
    first ranks are certain by that, and the lists' recall. After Carlini et al. (2023), section 4.2.
    """
    options = OutlierOptions(top, by, n_neighbors, with_duplicates, refine)
    with engine_or_own(engine) as engine:
        return find(run_dir, out or join(run_dir, "outliers"), options, engine, reporter or SilentReporter())


def write_report(run_dir: str, out: str = "", *, n_galleries: int = 20, seed: int = 0, engine: Engine | None = None) -> ReportSummary:
    """Write the HTML report of a finished run: one file without anything beside it.

    Parameters
    ----------
    run_dir : str
        A path or any fsspec URL. The stages up to `manifest` must be finished; what later ones would give is left out.
    out : str
        File to write; by default `report.html` in the run directory.
    n_galleries : int
        Groups drawn of the largest, and as many at random; 0 to 100.
    seed : int
        Of the random groups and of the sample of vectors.
    engine : Engine
        What answers questions to the tables; by default DuckDB on this machine.

    Returns
    -------
    ReportSummary
        Path, bytes, pictures, and notes of what is missing: `notes` says why where there are no pictures.

    Raises
    ------
    MissingExtra
        If jinja2 is not installed.
    RunDirectoryError
        If the run is not finished so far, naming the stage that is missing.

    Notes
    -----
    At most 25 MB: beyond, pictures are left out, the first of each gallery last. Two reports of one run differ in their date alone.
    """
    with engine_or_own(engine) as engine:
        return write(run_dir, out, n_galleries=n_galleries, seed=seed, engine=engine)
