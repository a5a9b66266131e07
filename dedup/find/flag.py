"""Flagging generated images that are copies of training images, before they are released."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from dedup.contracts import Engine, JsonDict, Reporter, SilentReporter, in_order, reported
from dedup.engines.local import engine_or_own
from dedup.find.answers import Answer, Match
from dedup.find.index import opened_index
from dedup.find.inputs import find_inputs, read_inputs
from dedup.schemas import FLAGS
from dedup.storage.tables import FileWriter

_PER_TASK = 64  # most files of one task; progress is reported after each task
_ROWS_HELD = 1_000  # rows held before they are written
_COPIES_SHOWN = 10

_FROM_MATCH = (
    "sample_id", "key", "shard", "url", "caption", "similarity", "view", "distance", "l2", "tiled_l2",
    "duplication_count", "component_id", "is_kept",
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """How images are looked up."""

    run_dir: str
    overrides: tuple[str, ...] = ()  # see `open_index`
    device: str = "auto"
    k: int = 10
    min_similarity: float | None = None
    # judge_pixels, measures: see `RunIndex.search_bytes`
    judge_pixels: bool = True
    measures: bool = False


@dataclass(frozen=True)
class LookupTask:
    """Files and tars that one worker looks up."""

    question: Question
    paths: tuple[str, ...]


@dataclass(frozen=True)
class FlagSummary:
    """Totals over all images."""

    out: str
    n_images: int  # looked up
    n_copies: int
    n_unknown: int  # with a match that could not be judged
    n_errors: int  # that are not images
    copies: list[JsonDict] = field(default_factory=list)  # rows of the first copies


def look_up(task: LookupTask) -> list[Answer]:
    """Answers for the images of some files."""
    question, index = task.question, opened_index(task.question.run_dir, task.question.overrides, task.question.device)
    answers = []
    for image in read_inputs(task.paths, max_image_bytes=index.run.config.input.max_image_bytes):
        if image.error is not None:
            answers.append(Answer(image.name, [], str(image.error), image.error.reason))
            continue
        answers += index.search_bytes(
            [(image.name, image.data)],
            k=question.k,
            min_similarity=question.min_similarity,
            judge_pixels=question.judge_pixels,
            measures=question.measures,
        )
    return answers


def answers_of(question: Question, paths: Sequence[str], engine: Engine, reporter: Reporter) -> Iterator[Answer]:
    """Look up images; answers come in the order of the paths."""
    _ = opened_index(question.run_dir, question.overrides, question.device).encoder  # fails before any work if something is missing
    inputs = find_inputs(paths)
    size = max(1, min(_PER_TASK, -(-len(inputs) // (4 * engine.n_workers))))
    tasks = [LookupTask(question, tuple(inputs[start : start + size])) for start in range(0, len(inputs), size)]
    if len(inputs) <= 2 * size:  # too few to start workers for
        for task in tasks:
            yield from look_up(task)
        return
    results = engine.map_partitions(look_up, tasks, uses_gpu=question.device != "cpu")
    for answers in in_order(reported(results, [len(task.paths) for task in tasks], reporter, "lookup", "files")):
        yield from answers


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
        Parquet file to write, with the columns of `dedup.schemas.FLAGS` and a row per image.
    k : int
        Training images to compare each image with.
    min_similarity : float, optional
        Lowest cosine of training images to compare; by default the run's threshold.
    judge_pixels : bool
        If False, similarity alone decides.
    overrides : sequence of str
        See `dedup.open_index`.
    engine : Engine
        By default processes on this machine.
    reporter : Reporter

    Raises
    ------
    RunDirectoryError
        If the run can't be searched.
    InputError
        If an image, folder or tar does not exist.
    """
    question = Question(run_dir, tuple(overrides), "auto", k, min_similarity, judge_pixels, measures=judge_pixels)
    index = opened_index(question.run_dir, question.overrides, question.device)
    threshold = index.min_similarity if min_similarity is None else min_similarity
    limits = {"min_similarity": threshold, "max_distance": index.run.config.confirm.max_distance}
    by_pixels = judge_pixels and index.run.judges_pixels
    with engine_or_own(engine) as engine:
        answers = answers_of(question, images, engine, reporter or SilentReporter())
        return _write(out, (flag_row(answer, by_pixels=by_pixels) | limits for answer in answers))


def _write(out: str, rows: Iterator[JsonDict]) -> FlagSummary:
    n_images = n_copies = n_unknown = n_errors = 0
    copies: list[JsonDict] = []
    with FileWriter(out, FLAGS) as writer:
        waiting: list[JsonDict] = []
        for row in rows:
            n_images, n_copies = n_images + 1, n_copies + (row["is_copy"] is True)
            n_errors, n_unknown = n_errors + (row["error"] is not None), n_unknown + (row["rule"] == "unreadable")
            if row["is_copy"] and len(copies) < _COPIES_SHOWN:
                copies.append(row)
            waiting.append(row)
            if len(waiting) >= _ROWS_HELD:
                writer.write(pa.Table.from_pylist(waiting, schema=FLAGS))
                waiting.clear()
        writer.write(pa.Table.from_pylist(waiting, schema=FLAGS))
    return FlagSummary(out, n_images, n_copies, n_unknown, n_errors, copies)


def flag_row(answer: Answer, *, by_pixels: bool) -> JsonDict:
    """A row of `FLAGS` without the thresholds: the best match and the verdict on it."""
    row: JsonDict = {"image": answer.image, "error": answer.error, "is_copy": None, "rule": "none"} | dict.fromkeys(_FROM_MATCH)
    if answer.error is not None:
        return row
    if not answer.matches:
        return row | {"is_copy": False}
    best = answer.matches[0]
    if not by_pixels:
        return row | _match_columns(best) | {"is_copy": True, "rule": "similarity"}
    # a match that can't be read may be the copy
    unread = next((match for match in answer.matches if match.is_copy is None), None)
    if best.is_copy is not True and unread is not None:
        return row | _match_columns(unread) | {"rule": "unreadable"}
    return row | _match_columns(best) | {"is_copy": best.is_copy, "rule": "pixels"}


def _match_columns(match: Match) -> JsonDict:
    return {name: getattr(match, name) for name in _FROM_MATCH}
