"""The configuration keys: frozen dataclasses whose defaults are the truth.

Each key states its default, its meaning, the values it takes, and the stage whose result depends on it. A key without a stage fails on
import: otherwise a result would be silently reused although the key had changed.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from dedup.config.encoders import ENCODER_NAMES, KINDS
from dedup.config.key import Key, Texts, all_keys, free, key

_THRESHOLDS: Final = ", ".join(f"{kind.name} {kind.default_min_similarity}" for kind in KINDS)


# Pillow refuses more: twice the pixels from which it warns of a decompression bomb.
MAX_PIXELS = 178_956_970

MAX_IMAGE_BYTES = 256 * 1024 * 1024


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """Where samples come from."""

    shards: Texts = free(
        [],
        "webdataset tars, or parquet and Arrow files with images: globs, brace ranges {00000..00999}, lists of URLs (@list.txt), any fsspec URL; "
        "may be given several times",
        form="address",
    )
    images: Texts = key(
        [], "instead of shards: a folder of images, with its subfolders; may be given several times", stage="embed", form="address"
    )
    embeddings: str = key(
        "",
        "instead of shards, with encoder.name=precomputed: a folder of embeddings: img_emb_0.npy with metadata_0.parquet (clip-retrieval, LAION), "
        "NAME.npy with NAME.parquet or NAME.csv or alone, HASH.npz (DataComp), raw arrays, or parquet or Lance with a column 'embedding' (NeMo Curator)",
        stage="embed",
        form="address",
    )
    captions: str = key(
        "",
        "for input.images: a table with columns file, caption (and url): CSV, parquet, JSON lines or JSON; without it, captions are in text and json files beside the images",
        stage="embed",
        form="address",
    )
    sidecar: bool = key(False, "join NNNNN.parquet beside NNNNN.tar by key (url, caption and carried columns)", stage="embed")
    carry: Texts = key(
        [],
        "additional columns of the json, sidecar or table of captions to copy into every table of samples: similarity, punsafe, LICENSE, …; one that nothing has is an error",
        stage="embed",
        form="commas",
    )
    columns: Texts = key(
        [],
        "columns of published embeddings by what they hold: vector=l14_img, key=uid, url=…, caption=…; what is not named is looked for under "
        "the usual names",
        stage="embed",
        form="commas",
    )
    raw: str = key(
        "",
        "type and width of published embeddings that are bare bytes, raw arrays (.bin, .dat, .memmap, …) or columns of bytes: float16x512",
        stage="embed",
    )
    images_per_sample: str = key(
        "all",
        "which images of a sample in a tar count: all, first, or the one member of this name, such as output.jpg; samples are copies only if "
        "all these are",
        stage="embed",
    )
    max_pixels: int = key(MAX_PIXELS, "images with more pixels are rejected before they are decoded", stage="embed", low=1)
    max_image_bytes: int = key(MAX_IMAGE_BYTES, "images with more bytes are rejected without being read", stage="embed", low=1)
    allow_missing: bool = free(False, "publish a manifest even if a shard could not be reached")

    @property
    def source_noun(self) -> str:
        """What one of the things that are read is called; its plural ends in s."""
        return "part" if self.images else "file" if self.embeddings else "shard"


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """Where tables go."""

    run_dir: str = free("", "the run directory: a path or any fsspec URL", form="address")


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """An earlier run that this one adds to."""

    run_dir: str = free(
        "",
        "a finished run over earlier shards: only new shards are embedded, and their images compared with those of that run and with each other; "
        "the tables cover both",
        form="address",
    )
    moved: Texts = free(
        [],
        "OLD=NEW: beginnings of paths at which the base's data lay, and lie now; data that was moved as it is, and is given again, is "
        "recognised without it",
    )


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """What turns an image into a vector."""

    name: str = key(
        "dct",
        "the encoder: dct (weights-free descriptor of 384 dimensions), clip (an open_clip model), torchscript (a scripted model such as SSCD), "
        "precomputed (the embeddings of input.embeddings)",
        stage="embed",
        choices=ENCODER_NAMES,
    )
    model: str = free("ViT-B-32", "clip: a model name of open_clip, or the path of an open_clip JSON configuration")
    pretrained: str = free(
        "",
        "clip: a pretrained tag of the model, or a checkpoint (safetensors, or a torch file with weights only); torchscript: the model file",
        form="address",
    )
    precision: str = free(
        "auto", "clip, torchscript: fp32, fp16 or bf16; auto = fp16 on a GPU, fp32 on a CPU", choices=("auto", "fp32", "fp16", "bf16")
    )
    exact_preprocessing: bool = free(False, "clip, torchscript: decode in full, and resize 8-bit images exactly as open_clip does")
    compile: bool = free(False, "clip: compile the model with torch.compile: takes minutes at the start, then runs faster")
    image_size: int = free(288, "torchscript: width and height the model takes, in pixels", low=1)
    normalization: str = free(
        "imagenet",
        "torchscript: mean and standard deviation to normalise pixels with: imagenet, clip, half (to -1 to 1)",
        choices=("imagenet", "clip", "half"),
    )


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    """How shards are embedded."""

    shards_per_partition: int = key(1, "tars per partition: 1 on one machine, about 100 on a cluster", stage="embed", low=1)
    images_per_partition: int = key(
        0,
        "for input.images: files per partition; 0 = some 128 to 8,192, so that large folders have some 64 partitions, and new files change few of them",
        stage="embed",
        low=0,
    )
    batch_size: int = free(0, "images per encoder batch; 0 = what suits the encoder; on a GPU, what fits into free memory", low=0)
    decode_threads: int = free(
        0,
        "threads that decode images for the encoder; 0 = one per core of the task if a GPU encodes, otherwise none besides the encoder's own",
        low=0,
    )
    also: Texts = key(
        ["auto"],
        "a second source of candidates, computed in the same pass: dct (finds changed copies that a model misses), or [] for none; "
        "auto = dct with clip and torchscript where pixels are judged",
        stage="embed",
        form="commas",
    )
    text: bool = key(False, "clip: also embed captions, for the column caption_similarity", stage="embed")
    thumbnails: str = key(
        "auto",
        "store a thumbnail of each image (6 to 9 KB), for judging its pixels later: true, false; auto = if shards are remote",
        stage="embed",
        form="switch",
    )
    copy_vectors: bool = key(
        False,
        "copy published embeddings into the run directory even where they could be read as they lie: local .npy files of float16 unit rows",
        stage="embed",
    )


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How near-duplicate pairs are found."""

    min_similarity: float = key(
        0.0,
        f"cosine from which a pair of images is a candidate; 0 = the encoder's default: {_THRESHOLDS}",
        stage="index",
        form="similarity or 0",
    )
    also_min_similarity: float = key(
        0.0, "the same for the vectors of embed.also; 0 = that encoder's default", stage="index", form="similarity or 0"
    )
    views: bool = key(
        True,
        "also find crops, framed pictures, and mirrored and turned copies, by views: vectors of an image's parts and turns",
        stage="index",
    )
    view_min_similarity: float = key(
        0.8, "cosine from which two views make their images a candidate pair", stage="index", form="similarity"
    )
    method: str = key(
        "lists",
        "how pairs are found: lists (all pairs within each inverted list), ivfpq (each image is looked up in the FAISS index; only its codes must fit "
        "into memory; slower, for more vectors than memory holds)",
        stage="pairs",
        choices=("lists", "ivfpq"),
    )
    nlist: int = key(0, "inverted lists of the index; 0 = sqrt(nprobe * N)", stage="index", low=0, high=2**31 - 1)
    nprobe: int = key(
        0,
        "inverted lists per vector; 0 = 8 for thresholds from 0.9, 16 from 0.8, 32 below; half as many more for each factor of ten above a million images",
        stage="index",
        low=0,
        high=2**31 - 1,
    )
    exhaustive_below: int = key(
        20_000, "below this number of distinct images there is one list: every pair is compared", stage="index", low=0
    )
    best_edges: int = key(8, "best edges written for each image, besides the spanning forest", stage="pairs", low=0, high=2**31 - 1)
    low_detail_quality: float = key(
        10.0, "images with less detail than this follow a stricter rule: search.low_detail_min_similarity", stage="index", low=0, high=100
    )
    low_detail_min_similarity: float = key(
        0.99, "cosine from which a pair with a low-detail image is a candidate", stage="index", form="similarity"
    )
    flat_quality: float = key(1.0, "images with less detail than this are copies only if byte-identical", stage="index", low=0, high=100)
    all_alike: str = free(
        "stop",
        "what to do if more than half of the pairs of random images reach search.min_similarity, and pixels are not judged: stop, or continue",
        choices=("stop", "continue"),
    )
    recall_queries: int = key(
        -1,
        "images searched exhaustively in every run to measure recall; -1 = up to 1,000, fewer if that would take long; 0 = none",
        stage="pairs",
        low=-1,
    )


@dataclasses.dataclass(frozen=True)
class IndexConfig:
    """The FAISS index of a run: trained quantizer and compressed codes."""

    codes: str = key(
        "auto",
        "codes in the index: pq (64 bytes per vector), fp16 (exact), none; auto = pq from 20,000 vectors up, below that fp16",
        stage="index",
        choices=("auto", "pq", "fp16", "none"),
    )
    factory: str = key(
        "",
        "another index, as a FAISS factory string with inverted lists, such as IVF{nlist},Flat or OPQ64,IVF{nlist},PQ64; it trains its own lists; "
        "empty = the run's lists with index.codes",
        stage="index",
    )
    train_vectors_per_list: int = key(32, "training vectors per list for the coarse quantizer", stage="index", low=1)
    train_iterations: int = key(6, "k-means iterations of the coarse quantizer", stage="index", low=1)
    seed: int = key(1234, "seed of the training sample and of k-means", stage="index", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class ConfirmConfig:
    """How candidate pairs are judged by their pixels."""

    enabled: bool = key(True, "judge candidate pairs by their pixels before they count as copies", stage="confirm")
    max_distance: float = key(
        0.15, "largest distance of the registered pictures for which they count as copies, 0 (equal) to 1", stage="confirm", low=0, high=1
    )
    unreadable: str = key(
        "refuse",
        "what to do with a pair whose pixels can't be read again: refuse (they are not copies) or keep (they are: similarity alone decides)",
        stage="confirm",
        choices=("refuse", "keep"),
    )
    drop: Texts = key(
        ["copy", "part"],
        "relations in which one of a pair may be dropped: copy, part (one lies inside the other), template (one layout or ground, other "
        "content), scene (one place, another moment), different",
        stage="confirm",
        choices=("copy", "part", "template", "scene", "different"),
        form="commas",
    )
    reconnect: int = key(
        32, "for each image with a refused candidate: how many more neighbours to judge; 0 = none", stage="confirm", low=0, high=4096
    )


@dataclasses.dataclass(frozen=True)
class GroupsConfig:
    """How connected components are found."""

    max_driver_edges: int = free(
        50_000_000,
        "up to this number of edges the driver finds components on its own (about 80 bytes an edge); above it, the engine does",
        low=0,
    )


@dataclasses.dataclass(frozen=True)
class ExcludeConfig:
    """Samples that must not be trained on: near evaluation sets, or named by a takedown list."""

    reference_shards: Texts = key(
        [],
        "webdataset tars of reference images, given like input.shards; samples near one go to excluded/",
        stage="exclude",
        form="address",
    )
    reference_images: str = key(
        "",
        "a folder of reference images, with its subfolders; may be given together with exclude.reference_shards",
        stage="exclude",
        form="address",
    )
    list: str = key(
        "",
        "a file that names samples, which go to excluded/ with their copies: one sha256, url, key or path of an image per line "
        "(also sha256:…, url:…, key:…, image:…); or CSV or parquet with columns of these names",
        stage="exclude",
        form="address",
    )


@dataclasses.dataclass(frozen=True)
class KeepConfig:
    """Which copy of a group is kept."""

    order_by: Texts = key(
        ["originality desc", "has_caption desc", "has_exif desc", "width*height desc", "n_bytes desc", "sample_id"],
        "the first sample of a group in this order is kept; originality is what an image has left of the picture that its group shares",
        stage="manifest",
        form="commas",
    )
    per_component: int = key(1, "samples kept of each group", stage="manifest", low=1)
    templates: int = key(
        0, "groups kept of each template: images of one layout or ground with other content (templates/); 0 = all", stage="manifest", low=0
    )
    scenes: int = key(0, "groups kept of each scene: images of one place at other moments (scenes/); 0 = all", stage="manifest", low=0)
    prefer: Texts = key(
        [],
        "files and folders (paths or URLs, the first preferred most): a copy that lies there is kept before all that lie elsewhere, whatever "
        "keep.order_by says",
        stage="manifest",
        form="address",
    )
    caption: str = key(
        "own",
        "the caption that a kept sample trains with: own, most_frequent (of its group), best (of its group, the one most similar to its image: needs "
        "embed.text=true or the carried column similarity)",
        stage="manifest",
        choices=("own", "most_frequent", "best"),
    )
    prefer_base: bool = key(False, "keep whatever base.run_dir kept: its keepers come before keep.order_by", stage="manifest")


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """The extraction attack's target list."""

    top: int = key(350_000, "number of targets at most, highest ranked first (Carlini et al. 2023)", stage="targets", low=1)
    rank_by: str = key(
        "duplicates",
        "what ranks a group: duplicates (number of its samples, as in the paper), templates (number of samples of its template: one target for each "
        "template, unique images included), neighbors (largest number of similar samples of one of its images), "
        "caption (number of samples in the whole data set with its prompt)",
        stage="targets",
        choices=("duplicates", "templates", "neighbors", "caption"),
    )
    min_caption_length: int = key(
        1,
        "minimum length of a prompt in characters; if a caption is shorter, the group's next most frequent one is used",
        stage="targets",
        low=0,
        high=2**31,
    )
    max_caption_length: int = key(0, "maximum length of a prompt in characters; 0 = any", stage="targets", low=0, high=2**31)
    language: Texts = key([], "languages to include, as written in targets.language_column; empty = any", stage="targets", form="commas")
    language_column: str = key("LANGUAGE", "carried column that holds the language", stage="targets")
    max_punsafe: float = key(
        1.0,
        "groups whose kept image has a higher value in the carried column punsafe are left out; 1 = none",
        stage="targets",
        low=0,
        high=1,
    )
    images_per_second: float = free(
        0.0, "images that one GPU generates per second, for the GPU hours in the summary; 0 = not known", low=0, high=2**31
    )
    n_generations: int = key(500, "images to generate for each target (Carlini et al. 2023)", stage="targets", low=1, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class ExtractionConfig:
    """When generated images count as memorised; after Carlini et al. 2023."""

    max_tile_distance: float = free(
        0.1,
        "two generations of a prompt are one picture if their l2 is at most this in each of 16 tiles, 0 to 1 (the paper gives no number)",
        low=0,
        high=1,
    )
    min_clique: int = free(
        10, "number of generations that must be one picture for a prompt to count as memorised (Carlini et al. 2023)", low=2
    )
    max_distance: float = free(
        0.15, "δ: a generation is a training image if its distance to it is at most this (Carlini et al. 2023)", low=0, high=1
    )
    min_area: float = free(
        0.2, "share of the picture that generations and training image must have in common for a template verbatim", low=0.01, high=1
    )
    max_side: int = free(512, "generations with a longer side are reduced to this many pixels", low=8, high=4096)
    targets_per_part: int = free(16, "targets scored by one task; after an interruption only missing parts are scored", low=1)


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The HTML report of a run."""

    enabled: bool = free(True, "write report.html at the end of every run of all stages, if the extra `report` is installed")


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Where the work is done."""

    name: str = free("local", "the engine: local (processes and DuckDB on this machine), spark (needs Java)", choices=("local", "spark"))
    device: str = free(
        "auto",
        "where models and products of vectors are computed: cpu, cuda; auto = cuda if torch finds a GPU and it pays: for an encoder of "
        "torch and for generated images always, in `index` and `pairs` from 200,000 vectors up. The pairs are the same; crowds of near-copies are compared on the CPU",
        choices=("auto", "cpu", "cuda"),
    )
    workers: int = free(0, "local: worker processes; 0 = one per core this process may use, fewer if memory is short", low=0)
    memory_limit: str = free("4GB", "local: memory of the SQL engine before it spills to disk")
    preflight: str = free(
        "refuse",
        "what to do if memory or disk seem too small before any work: refuse to start, or warn and continue (needs are estimated)",
        choices=("refuse", "warn"),
    )
    master: str = free("", "spark: local[*], spark://host:7077, yarn, k8s://…; empty = that of spark-submit, otherwise local[*]")
    sends_rows: str = free(
        "auto",
        "spark: send vectors through the shuffle (true), or let workers read them from the run's files (false); auto = false only with local[N]",
        form="switch",
    )
    gpus_per_task: float = free(
        0.0,
        "spark: GPUs per task, only for tasks of `embed`, `index` and `pairs` that can use one (stage-level scheduling); 0 = as for any task, spark.task.resource.gpu.amount",
        low=0,
    )
    spark: Texts = free([], "spark: settings of the session as NAME=VALUE, such as spark.executor.memory=8g; may be given several times")


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything a run depends on; see `docs/configuration.md`."""

    input: InputConfig = dataclasses.field(default_factory=InputConfig)
    output: OutputConfig = dataclasses.field(default_factory=OutputConfig)
    base: BaseConfig = dataclasses.field(default_factory=BaseConfig)
    encoder: EncoderConfig = dataclasses.field(default_factory=EncoderConfig)
    embed: EmbedConfig = dataclasses.field(default_factory=EmbedConfig)
    search: SearchConfig = dataclasses.field(default_factory=SearchConfig)
    index: IndexConfig = dataclasses.field(default_factory=IndexConfig)
    confirm: ConfirmConfig = dataclasses.field(default_factory=ConfirmConfig)
    groups: GroupsConfig = dataclasses.field(default_factory=GroupsConfig)
    exclude: ExcludeConfig = dataclasses.field(default_factory=ExcludeConfig)
    keep: KeepConfig = dataclasses.field(default_factory=KeepConfig)
    targets: TargetsConfig = dataclasses.field(default_factory=TargetsConfig)
    extraction: ExtractionConfig = dataclasses.field(default_factory=ExtractionConfig)
    report: ReportConfig = dataclasses.field(default_factory=ReportConfig)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)


SECTIONS: Final[Mapping[str, Any]] = MappingProxyType(typing.get_type_hints(Config))


KEYS: Final[Mapping[str, Key]] = MappingProxyType(all_keys(SECTIONS))


def keys_of(stage: str) -> tuple[str, ...]:
    """Names of the keys that a stage's result depends on, besides those of the stages before it.

    >>> keys_of("pairs")
    ('search.method', 'search.best_edges', 'search.recall_queries')
    """
    return tuple(name for name, entry in KEYS.items() if entry.stage == stage)


def values_of(config: Config) -> dict[str, Any]:
    """The value of every key, by its name."""
    return {name: getattr(getattr(config, section), field) for name in KEYS for section, _, field in [name.partition(".")]}
