"""The score of one target: whether a model has memorised its image, as a whole or as a template, and how near it comes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from dedup.attack.generations import Generation, Stack, decoded, read_pixels, stack, stretched
from dedup.attack.target_list import place_of
from dedup.attack.training import TrainingRun, known_template
from dedup.config import ExtractionConfig
from dedup.contracts import JsonDict
from dedup.errors import InputError, SampleError
from dedup.judge.pair import png
from dedup.numerics.arraytypes import Ids, Mask, Pixels, Sims
from dedup.numerics.graph.cliques import largest_clique
from dedup.numerics.judge.relation import MASK_SIDE
from dedup.numerics.pixels import TILES, l2_distances, pairwise_tiled_distances, tiled_distances
from dedup.numerics.search.gpu import Device
from dedup.numerics.shared import Limits, Shared, find_shared, shows_detail
from dedup.storage.input.samples import one_line
from dedup.storage.input.shards import read_image_bytes

VERBATIM, TEMPLATE, RETRIEVED, NONE = "verbatim", "template", "retrieved", "none"
LABELS: Final = (VERBATIM, TEMPLATE, RETRIEVED, NONE)

_NEARLY_ALL: Final = 0.95  # area from which a reproduced training image is so as a whole, though a clique of generations is one only there

_EMPTY: Final[JsonDict] = dict.fromkeys(
    (
        "mean_distance", "generation", "l2", "tiled_l2", "is_extracted", "eidetic_k", "similarity", "label", "area", "clique_size_masked",
        "mean_distance_masked", "generation_masked", "l2_masked", "tiled_l2_masked", "mask", "retrieved_shard", "retrieved_key", "detail",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A target and what belongs to it."""

    row: JsonDict  # of the list of targets
    generations: list[Generation]
    members: list[JsonDict] = field(default_factory=list)  # the distinct images of its group, with `n_samples`
    template: list[JsonDict] = field(default_factory=list)  # pairs of its training image with others of its template


class TargetScorer:
    """Scores targets, one after the other.

    `device`: where distances of all pairs are computed; None = the CPU.
    `training`: the run over the training images, to embed and look up generations; None if it can't.
    """

    def __init__(self, options: ExtractionConfig, device: Device | None, training: TrainingRun | None) -> None:
        self.options, self.device, self.training = options, device, training
        self.limits = Limits(options.max_tile_distance, options.max_distance, options.min_clique, options.min_area)

    def score(self, target: Target) -> JsonDict:
        """A row of `dedup.schemas.SCORES`."""
        read = stack(target.generations, self.options.max_side)
        n = len(read.names)
        scored: JsonDict = {name: target.row[name] for name in ("target_id", "component_id", "duplication_count")} | _EMPTY
        scored |= {"n_generations": n, "n_rejected": read.n_rejected, "n_resized": read.n_resized, "status": "ok"}
        scored |= {"clique_size": n, "clique_is_exact": True, "is_memorized": False}
        clique = np.arange(n)
        if n and min(read.images.shape[1:3]) < TILES:
            height, width = read.images.shape[1:3]
            return scored | {"status": "too_small", "detail": f"{width} x {height} pixels; expected at least {TILES} to a side"}
        if n < 2:
            status = "few_generations" if target.generations else "no_generations"
            detail = (
                f"{n} of {len(target.generations)} show something; others do not decode, or have one colour" if target.generations else None
            )
            scored |= {"status": status, "detail": detail}
        else:
            clique, facts = self._clique(read.images)
            scored |= facts
        if not n:
            return scored
        return scored | self._compared(target, read, clique, scored)

    def _clique(self, images: Pixels) -> tuple[Ids, JsonDict]:
        """The largest set of generations that are one picture."""
        distances = pairwise_tiled_distances(images, device=self.device)
        clique, is_exact = self._detailed_clique(images, distances <= np.float32(self.options.max_tile_distance))
        facts = {"clique_size": len(clique), "clique_is_exact": is_exact, "mean_distance": _mean_distance(distances, clique)}
        return clique, facts | {"is_memorized": len(clique) >= self.options.min_clique}

    def _detailed_clique(self, images: Pixels, is_near: Mask) -> tuple[Ids, bool]:
        """The largest clique of generations that show the same detail, and whether the searches were complete.

        Small things on one ground are near each other, whatever they are: of a clique that counts, those stay that show the detail of its
        middle one. If too few do, the others are put aside, and it is looked for the next.
        """
        left, is_exact = np.arange(len(images)), True
        while True:
            largest = largest_clique(is_near[np.ix_(left, left)])
            clique, is_exact = left[largest.members], is_exact and largest.is_exact
            if len(clique) < self.options.min_clique:
                return clique, is_exact
            is_shown = shows_detail(images[clique], images[_middle(images, clique)], self.limits)
            if is_shown.sum() >= self.options.min_clique or not (~is_shown).any():
                return clique[is_shown], is_exact
            left = np.setdiff1d(left, clique[~is_shown])

    def _compared(self, target: Target, read: Stack, clique: Ids, scored: JsonDict) -> JsonDict:
        """What the generations have in common with the training image, and else with another one."""
        candidates = clique if scored["is_memorized"] else np.arange(len(read.names))
        try:
            training = read_image_bytes(*place_of(target.row))
            pixels = stretched(decoded(training), *read.images.shape[1:3])
        except (InputError, SampleError) as error:
            status = scored["status"] if scored["status"] != "ok" else "no_training_image"
            return {"status": status, "detail": one_line(error)}
        found, best = self._nearest(read, candidates, pixels, target.members, scored["detail"])
        found["label"] = NONE
        if self.training is not None:
            found["similarity"] = self.training.similarity(_bytes(read.places[best]), training)
        if found["is_extracted"] and scored["is_memorized"]:
            return found | _whole(found, scored)
        shared = find_shared(read.images, pixels, self.limits, known_template(target.template))
        # of twelve generations of a template one may by chance be near the whole training image: the twelve count
        if found["is_extracted"] and (shared is None or len(shared.members) < self.options.min_clique or shared.area > _NEARLY_ALL):
            return found | _whole(found, scored)
        if shared is not None:
            return found | {"label": TEMPLATE} | _shared_columns(shared, read.names)
        if scored["is_memorized"] and self.training is not None:
            return found | self._retrieved(_bytes(read.places[_middle(read.images, clique)]))
        return found

    def _nearest(self, read: Stack, candidates: Ids, training: Pixels, members: list[JsonDict], before: str | None) -> tuple[JsonDict, int]:
        """The candidate nearest to the training image, and the samples of the group that are within δ of it."""
        tiled = tiled_distances(read.images[candidates], training)
        is_extracted = tiled <= self.options.max_distance
        if is_extracted.any():
            is_extracted[is_extracted] = shows_detail(read.images[candidates[is_extracted]], training, self.limits)
        place = int(np.lexsort((tiled, ~is_extracted))[0])
        best = int(candidates[place])
        nearest = read.images[best]
        n_near, trouble = 0, ""
        for member in members:
            try:
                pixels = stretched(read_pixels(*place_of(member)), *nearest.shape[:2])
            except (InputError, SampleError) as error:
                trouble = one_line(error)
                continue
            n_near += member["n_samples"] * bool(tiled_distances(pixels[None], nearest)[0] <= self.options.max_distance)
        return {
            "generation": read.names[best],
            "l2": float(l2_distances(nearest[None], training)[0]),
            "tiled_l2": float(tiled[place]),
            "is_extracted": bool(is_extracted[place]),
            "eidetic_k": n_near if members else None,
            "detail": f"not all of the group could be read: {trouble}" if trouble else before,
        }, best

    def _retrieved(self, generation: bytes) -> JsonDict:
        """The other training image that a clique reproduces, if the run has it."""
        match = self.training.retrieve(generation) if self.training is not None else None
        return {} if match is None else {"label": RETRIEVED, "retrieved_shard": match.shard, "retrieved_key": match.key}


def _whole(found: JsonDict, scored: JsonDict) -> JsonDict:
    """The columns of a training image that is reproduced as a whole."""
    nearest = {"generation_masked": found["generation"], "l2_masked": found["l2"], "tiled_l2_masked": found["tiled_l2"]}
    clique = {"clique_size_masked": scored["clique_size"], "mean_distance_masked": scored["mean_distance"]}
    return {"label": VERBATIM, "area": 1.0} | nearest | clique


def _shared_columns(shared: Shared, names: list[str]) -> JsonDict:
    best = int(np.argmin(shared.tiled))
    step = MASK_SIDE // len(shared.cells)
    return {
        "area": shared.area,
        "clique_size_masked": len(shared.members),
        "mean_distance_masked": shared.mean_distance,
        "generation_masked": names[int(shared.members[best])],
        "l2_masked": float(shared.l2[best]),
        "tiled_l2_masked": float(shared.tiled[best]),
        "mask": png(np.kron(shared.cells, np.full((step, step), 255, np.uint8)).astype(np.uint8)),
    }


def _mean_distance(distances: Sims, clique: Ids) -> float | None:
    if len(clique) < 2:
        return None
    inside = distances[np.ix_(clique, clique)].astype(np.float64)
    return float(inside.sum() / (len(clique) * (len(clique) - 1)))


def _middle(images: Pixels, clique: Ids) -> int:
    """The generation of a clique that is nearest to the mean of all: the least changed one."""
    total = np.zeros(images.shape[1:], dtype=np.int64)
    for number in clique.tolist():
        total += images[number]
    mean = (total / len(clique)).round().astype(np.uint8)
    return int(min(clique.tolist(), key=lambda number: float(l2_distances(images[number : number + 1], mean)[0])))


def _bytes(place: Generation) -> bytes:
    return read_image_bytes(place.url, place.name, place.byte_offset, place.n_bytes)
