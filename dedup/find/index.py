"""Lookups in a finished run: which training images an image matches."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from dedup.config.encoders import encoder_kind
from dedup.encoders import load_encoder, view_maker
from dedup.encoders.encoder import Encoder
from dedup.errors import ConfigError, InputError, RunDirectoryError, SampleError
from dedup.find.answers import Answer, ImageJudge, Match, MatchJudge
from dedup.find.inputs import Views, views_of
from dedup.find.search import VectorSearch, ViewSearch
from dedup.runs.directory import Run
from dedup.runs.index import how_to_rebuild
from dedup.runs.samples import SampleTable

if TYPE_CHECKING:
    from dedup.numerics.search.faiss_index import IvfIndex


_NEEDED = ("embed", "index", "confirm", "groups", "manifest", "statistics")  # stages whose tables are read


def open_index(run_dir: str, *, overrides: Sequence[str] = (), device: str = "auto", stages: Sequence[str] | None = None) -> RunIndex:
    """Open the index of a finished run.

    Parameters
    ----------
    run_dir : str
        A path or any fsspec URL.
    overrides : sequence of str
        ``section.key=value`` of `encoder`, `input` or `engine`, over the run's own configuration. A run over precomputed embeddings names
        no encoder; looking up images in it needs one: ``encoder.name=clip encoder.pretrained=…``.
    device : str
        ``cpu``: the index is searched from its file; ``auto``: from a copy on GPUs, if FAISS finds any.
    stages : sequence of str, optional
        That must be finished; by default all that a lookup reads.

    Raises
    ------
    RunDirectoryError
        If the run is not finished, its parts do not match, or files are missing.
    MissingExtra
        If FAISS or the encoder's packages are not installed.
    """
    from dedup.numerics.search.faiss_index import IvfIndex
    from dedup.numerics.search.faiss_lists import count_gpus

    run = Run.open(run_dir, _NEEDED if stages is None else stages, overrides)
    run.check_vectors()
    index = IvfIndex(run.index_path(), n_gpus=0 if device == "cpu" else count_gpus())
    expected = (int(run.index_facts.get("n_images", -1)), int(run.index_facts.get("dim", -1)))
    if (index.n_vectors, index.dim) != expected:
        text = f"its index holds {index.n_vectors:,} vectors of {index.dim} dimensions, expected {expected[0]:,} of {expected[1]}"
        raise RunDirectoryError(f"{run_dir}: {text}; {how_to_rebuild(run.path('index'))}")
    return RunIndex(run, index)


@lru_cache(maxsize=1)
def opened_index(run_dir: str, overrides: tuple[str, ...], device: str) -> RunIndex:
    """`open_index`, once in a process: tasks that follow each other ask the same run."""
    return open_index(run_dir, overrides=overrides, device=device)


class RunIndex:
    """The index of a run; safe to share between threads, which take turns encoding and judging."""

    def __init__(self, run: Run, index: IvfIndex) -> None:
        self.run, self.index = run, index
        self.vectors = VectorSearch(run, index)
        self.samples = SampleTable(self.run)
        self._views = ViewSearch(self.run)
        self._encoding, self._judging = Lock(), Lock()

    @property
    def run_dir(self) -> str:
        """URL of the run."""
        return self.run.url

    @property
    def n_images(self) -> int:
        """Distinct training images."""
        return self.index.n_vectors

    @property
    def min_similarity(self) -> float:
        """Cosine from which the run called images candidates."""
        return self.run.config.search.min_similarity

    def search(
        self,
        images: Sequence[str | Path | bytes | npt.NDArray[np.uint8] | Image.Image],
        *,
        k: int = 10,
        min_similarity: float | None = None,
        judge_pixels: bool = True,
    ) -> list[Answer]:
        """Look up images.

        `images`: paths or URLs, encoded bytes, uint8 RGB arrays of shape (height, width, 3), or PIL images.
        `k`: most matches for each image.
        `min_similarity`: cosine from which training images match; the run's own by default.
        `judge_pixels`: whether matches are judged by their pixels, and images are also searched turned, without a frame, and in parts.
        Returns one for each image, in their order.
        """
        named = [_encoded(number, image) for number, image in enumerate(images)]
        return self.search_bytes(named, k=k, min_similarity=min_similarity, judge_pixels=judge_pixels)

    def search_bytes(
        self,
        images: Sequence[tuple[str, bytes]],
        *,
        k: int = 10,
        min_similarity: float | None = None,
        judge_pixels: bool = True,
        measures: bool = False,
    ) -> list[Answer]:
        """Look up encoded images, given with a name; `measures` also computes the l2 distances of the first match."""
        if k < 1:
            raise ConfigError(f"k={k}: expected at least 1")
        answers = []
        for name, data in images:
            try:
                with self._encoding:
                    views = self.views(data, all_views=judge_pixels)
            except SampleError as error:
                answers.append(Answer(name, [], str(error), error.reason))
                continue
            matches = self._matches(views, k, min_similarity)
            if judge_pixels and self.run.judges_pixels:
                with self._judging:
                    matches = self._judge.judged(data if measures else None, views, matches)
            answers.append(Answer(name, matches))
        return answers

    def search_vectors(self, vectors: npt.NDArray[np.floating], *, k: int = 10) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """The nearest distinct training images of some vectors: sample_ids and similarities, (n, k). See `VectorSearch.search`."""
        return self.vectors.search(vectors, k=k)

    def preview(self, sample_id: int, side: int = 256) -> bytes:
        """A small JPEG of a training image, its longer side at most `side` pixels.

        Raises RunDirectoryError if there is no such sample.
        Raises InputError, SampleError if its image can't be read.
        """
        with self._judging:
            pixels = self._judge.pixels(sample_id)
        picture = Image.fromarray(pixels)
        picture.thumbnail((side, side))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    @cached_property
    def encoder(self) -> Encoder:
        """The run's encoder, loaded on first use."""
        config = self.run.config.encoder
        if not encoder_kind(config.name).has_images:
            example = "encoder.name=clip encoder.model=ViT-B-32 encoder.pretrained=…"
            raise ConfigError(f"{self.run} holds precomputed embeddings, and does not know what made them; name it, such as {example}")
        self.run.check_encoder()
        encoder = load_encoder(config, self.run.config.engine.device)
        if encoder.dim != self.index.dim:
            expected = f"expected {self.index.dim} as {self.run}"
            raise ConfigError(f"encoder.name={config.name} gives vectors of {encoder.dim} dimensions, {expected}")
        return encoder

    @cached_property
    def _judge(self) -> MatchJudge:
        return MatchJudge(self.run, self.samples)

    def views(self, data: bytes, *, all_views: bool = True) -> Views:
        """The vectors of an encoded image; SampleError if it is not an image, or too large."""
        config = self.run.config
        if len(data) > config.input.max_image_bytes:
            limit = f"expected at most {config.input.max_image_bytes:,} (input.max_image_bytes)"
            raise SampleError("too_many_bytes", f"{len(data):,} bytes, {limit}")
        return views_of(data, self.encoder, view_maker(config.encoder), max_pixels=config.input.max_pixels, only_whole=not all_views)

    def candidates(self, views: Views, *, k: int = 0, min_similarity: float | None = None) -> dict[int, tuple[float, str]]:
        """Training images that are alike in a view, not yet judged: sample_id to (similarity, view).

        `k`: nearest of each view; 0 = all within the similarity.
        `min_similarity`: the run's own by default, and more for images of little detail.
        """
        search = self.run.config.search
        threshold = search.min_similarity if min_similarity is None else min_similarity
        # images with next to no detail are all alike
        if min_similarity is None and views.quality < search.low_detail_quality:
            threshold = max(threshold, search.low_detail_min_similarity)
        if k:
            ids, similarity = self.search_vectors(views.vectors, k=k)
            view, place = np.nonzero((ids >= 0) & (similarity >= np.float32(threshold)))
            hits = zip(view.tolist(), ids[view, place].tolist(), similarity[view, place].tolist(), strict=True)
        else:
            hits = zip(*(column.tolist() for column in self.vectors.neighbors(views.vectors, threshold)), strict=True)
        best: dict[int, tuple[float, str]] = {}
        for view_number, sample_id, value in hits:
            if value > best.get(sample_id, (-2.0, ""))[0]:
                best[sample_id] = (value, views.names[view_number])
        if views.view_rows is not None and self._views.has_views and views.quality >= search.low_detail_quality:
            # similarities of views are on a scale of their own: they only add what whole images miss
            view_hits = self._views.search(views.view_rows, max(search.view_min_similarity, min_similarity or 0.0))
            best |= {sample_id: hit for sample_id, hit in view_hits.items() if sample_id not in best}
        return best

    def judge_of(self, views: Views) -> ImageJudge:
        """A judge of training images against an image; not thread-safe."""
        return ImageJudge(views, self._judge)

    def _matches(self, views: Views, k: int, min_similarity: float | None) -> list[Match]:
        """The k most similar training images over all views, not yet judged."""
        best = self.candidates(views, k=k, min_similarity=min_similarity)
        order = sorted(best, key=lambda sample_id: (-best[sample_id][0], sample_id))[:k]
        return [self._match(sample_id, *best[sample_id]) for sample_id in order]

    def _match(self, sample_id: int, similarity: float, view: str) -> Match:
        row, group = self.samples.row(sample_id), self.samples.membership(sample_id)
        named = {name: row[name] for name in ("key", "shard", "url", "caption")}
        return Match(sample_id, similarity=similarity, view=view, **named, **vars(group))


def _encoded(number: int, image: str | Path | bytes | npt.NDArray[np.uint8] | Image.Image) -> tuple[str, bytes]:
    if isinstance(image, bytes):
        return f"image {number}", image
    if isinstance(image, (str, Path)):
        from dedup.storage.urls import read_bytes

        data = read_bytes(str(image))
        if data is None:
            raise InputError(f"{image} does not exist; expected an image")
        return str(image), data
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "PNG", compress_level=1)
    return f"image {number}", buffer.getvalue()
