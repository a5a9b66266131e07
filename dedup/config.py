"""Configuration: frozen dataclasses whose defaults are the truth.

Values come from the defaults, then a YAML file, then ``key=value`` overrides. Overrides of text are taken as
they are written, never parsed as YAML, so that ``input.shards=/data/{00000..00999}.tar`` needs no quoting.
"""

from __future__ import annotations

import dataclasses
from typing import Any

# Of each encoder: `search.min_similarity` where it is 0. A candidate's pixels are judged afterwards, so that it may be low; those of
# embeddings without pixels are not, and 0.9 of CLIP is a likeness of subject. Carlini et al. (2023) publish no number for CLIP;
# re-implementations use 0.9 with ViT-B/32. 0.75 is SSCD's own (Pizzi et al. 2022: 90% precision on DISC).
MIN_SIMILARITY = {"dct": 0.7, "clip": 0.9, "torchscript": 0.75, "precomputed": 0.95}

# Above this Pillow refuses: twice the pixels that it warns of as a decompression bomb.
MAX_PIXELS = 178_956_970
MAX_IMAGE_BYTES = 256 * 1024 * 1024


def _key(default: Any, meaning: str) -> Any:
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"meaning": meaning})
    return dataclasses.field(default=default, metadata={"meaning": meaning})


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """Where samples come from."""

    shards: list[str] = _key(
        [], "webdataset tars: globs, brace ranges {00000..00999}, files of URLs (@list.txt), any fsspec URL; may be given several times"
    )
    images: str = _key("", "instead of shards: a folder of images, searched with its subfolders")
    embeddings: str = _key(
        "",
        "instead of shards, with encoder.name=precomputed: a folder of embeddings: img_emb_0.npy with metadata_0.parquet (clip-retrieval, LAION), "
        "NAME.npy with NAME.parquet, or parquet with a column 'embedding' (NeMo Curator)",
    )
    captions: str = _key(
        "", "for input.images: a CSV or parquet with the columns file, caption (and url); else a .txt beside an image is its caption"
    )
    sidecar: bool = _key(False, "join NNNNN.parquet beside NNNNN.tar by key (url, caption and carried columns)")
    carry: list[str] = _key(
        [], "further columns of the json or sidecar to carry into every table of samples: similarity, punsafe, LICENSE, …"
    )
    max_pixels: int = _key(MAX_PIXELS, "images with more pixels are rejected before they are decoded")
    max_image_bytes: int = _key(MAX_IMAGE_BYTES, "images with more bytes are rejected unread")
    allow_missing: bool = _key(False, "publish a manifest although a shard could not be reached")


@dataclasses.dataclass(frozen=True)
class OutputConfig:
    """Where tables go."""

    run_dir: str = _key("", "the run directory: a path or any fsspec URL")


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """An earlier run that this one adds to."""

    run_dir: str = _key(
        "",
        "a finished run over earlier shards: only shards it has not embedded are embedded, and compared with its images and with each other; "
        "the tables cover both",
    )


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """What turns an image into a vector."""

    name: str = _key(
        "dct",
        "the encoder: dct (weights-free descriptor of 384 dimensions), clip (an open_clip model), torchscript (a scripted model such as SSCD), "
        "precomputed (embeddings of input.embeddings as they are)",
    )
    model: str = _key("ViT-B-32", "clip: the model's name in open_clip, or the path of an open_clip JSON configuration")
    pretrained: str = _key(
        "", "clip: a pretrained tag of the model, or a checkpoint (safetensors, or torch's weights alone); torchscript: the model file"
    )
    precision: str = _key("auto", "clip, torchscript: fp32, fp16 or bf16; auto = fp16 on a GPU, fp32 on a CPU")
    device: str = _key("auto", "clip, torchscript: cuda, cpu; auto = cuda where there is one")
    exact_preprocessing: bool = _key(False, "clip, torchscript: resize 8-bit images to the last bit as open_clip does, decoded in full")
    compile: bool = _key(False, "clip: torch.compile the model: minutes at the start, then faster")
    image_size: int = _key(288, "torchscript: width and height the model takes, in pixels")
    normalization: str = _key(
        "imagenet", "torchscript: mean and deviation that pixels are normalised by: imagenet, clip, half (to -1 to 1)"
    )


@dataclasses.dataclass(frozen=True)
class EmbedConfig:
    """How shards are embedded."""

    shards_per_partition: int = _key(1, "tars per partition: 1 on one machine, about 100 on a cluster")
    images_per_partition: int = _key(10_000, "for input.images: files per partition")
    batch_size: int = _key(0, "images per encoder batch; 0 = what suits the encoder, on a GPU what fits its free memory")
    decode_threads: int = _key(
        0, "threads that decode for the encoder; 0 = the cores of the task where a GPU encodes, else none beside its own"
    )
    also: list[str] = _key(
        [], "clip, torchscript: a second source of candidates, made in the same pass: dct (changed copies that a model misses)"
    )
    text: bool = _key(False, "clip: also embed captions, for the column caption_similarity")
    thumbnails: str = _key(
        "auto", "keep a thumbnail of each image (6 to 9 KB), for a later look at its pixels: true, false; auto = where shards are remote"
    )


@dataclasses.dataclass(frozen=True)
class SearchConfig:
    """How near-duplicate pairs are found."""

    min_similarity: float = _key(
        0.0,
        "cosine from which two images count as near-duplicates; 0 = what suits the encoder: dct 0.7, clip 0.9, torchscript 0.75, precomputed 0.95",
    )
    also_min_similarity: float = _key(0.0, "the same for the vectors of embed.also; 0 = what suits that encoder")
    looks: bool = _key(True, "also find crops, framed pictures, and mirrored and turned copies, by second looks at each image")
    look_min_similarity: float = _key(0.8, "cosine from which two looks make a pair of images a candidate")
    method: str = _key(
        "lists",
        "how pairs are found: lists (all pairs inside each inverted list), ivfpq (each image is looked up in the FAISS index, whose codes alone must fit "
        "into memory; slower, for more vectors than memory holds)",
    )
    nlist: int = _key(0, "inverted lists of the index; 0 = sqrt(nprobe * N)")
    nprobe: int = _key(
        0,
        "lists each vector goes to; 0 = 8 from similarity 0.9 up, 16 from 0.8, 32 below; half as many more for each factor of ten above a million images",
    )
    exhaustive_below: int = _key(20_000, "with fewer distinct images than this there is one list: every pair is compared")
    best_edges: int = _key(8, "best edges kept for each image beside the spanning forest")
    low_detail_quality: float = _key(10.0, "images with less detail than this follow the stricter rule")
    low_detail_min_similarity: float = _key(0.99, "cosine that low-detail images ask of a copy")
    flat_quality: float = _key(1.0, "images with less detail than this are copies only when byte-identical")
    device: str = _key(
        "auto",
        "where products of vectors are computed in `index` and `pairs`: cpu, cuda; auto = cuda from 200,000 vectors up, where torch is installed and finds "
        "a GPU. The pairs are the same; crowds of near-copies are compared on the CPU",
    )
    recall_queries: int = _key(
        -1, "images searched exhaustively to measure pair recall in every run; -1 = up to 1,000, fewer where that takes long; 0 = none"
    )


@dataclasses.dataclass(frozen=True)
class IndexConfig:
    """The index that stays: trained quantizer and compressed codes."""

    codes: str = _key("auto", "codes in the index: pq (64 bytes a vector), fp16 (exact), none; auto = pq from 20,000 vectors up, else fp16")
    factory: str = _key(
        "",
        "another index, as a FAISS factory string with inverted lists, such as IVF{nlist},Flat or OPQ64,IVF{nlist},PQ64; it trains lists of its own; "
        "empty = the run's lists with index.codes",
    )
    train_vectors_per_list: int = _key(32, "training sample of the coarse quantizer, vectors per list")
    train_iterations: int = _key(6, "k-means iterations of the coarse quantizer")
    seed: int = _key(1234, "seed of the training sample and of k-means")


@dataclasses.dataclass(frozen=True)
class ConfirmConfig:
    """The second look at the pixels of each candidate pair."""

    enabled: bool = _key(True, "judge candidate pairs by their pixels before they count as copies")
    max_distance: float = _key(0.15, "distance of the registered pictures up to which they are copies, 0 (equal) to 1")
    unreadable: str = _key("refuse", "a pair whose pixels can't be read again: refuse (both stay) or keep (similarity alone decides)")
    reconnect: int = _key(32, "for each image whose candidate was refused: further neighbours looked at; 0 = none")


@dataclasses.dataclass(frozen=True)
class ComponentsConfig:
    """How connected components are found."""

    max_local_edges: int = _key(
        50_000_000, "edges up to which the driver finds components alone (some 80 bytes an edge); beyond, they are contracted on the engine"
    )


@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """Images that no training sample may be near to: evaluation sets."""

    shards: list[str] = _key([], "webdataset tars of reference images, as input.shards; training samples near one go to excluded/")
    images: str = _key("", "a folder of reference images, with its subfolders; may be given beside shards")


@dataclasses.dataclass(frozen=True)
class ExcludeConfig:
    """Samples that must go, with their copies: takedowns."""

    list: str = _key(
        "",
        "a file that names samples, which go to excluded/ with their near copies: a sha256, a url, a key or the path of an image a line "
        "(also sha256:…, url:…, key:…, image:…); or CSV or parquet with columns of these names",
    )


@dataclasses.dataclass(frozen=True)
class KeepConfig:
    """Which of several copies stays."""

    order_by: list[str] = _key(["width*height desc", "n_bytes desc", "sample_id"], "the first of a group in this order is kept")
    per_component: int = _key(1, "copies kept of each group")
    prefer_base: bool = _key(False, "what base.run_dir kept stays: its keepers come before keep.order_by")


@dataclasses.dataclass(frozen=True)
class TargetsConfig:
    """The extraction attack's target list."""

    top: int = _key(350_000, "targets at most, the highest ranked first (Carlini et al. 2023)")
    rank_by: str = _key(
        "duplicates",
        "what ranks a group: duplicates (its samples, as in the paper), neighbors (the most similar samples that one of its images has), "
        "caption (samples of the whole data set with its prompt)",
    )
    min_caption_length: int = _key(1, "characters that a prompt has at least; a group's next most frequent caption is taken instead")
    max_caption_length: int = _key(0, "characters that a prompt has at most; 0 = any")
    language: list[str] = _key([], "languages that are kept, as targets.language_column names them; empty = any")
    language_column: str = _key("LANGUAGE", "carried column that holds the language")
    max_punsafe: float = _key(1.0, "groups whose kept image has a higher value of the carried column punsafe are left out; 1 = none are")
    images_per_second: float = _key(0.0, "images that one GPU generates in a second, for the hours that the summary tells; 0 = not known")
    n_generations: int = _key(500, "images to generate for each target (Carlini et al. 2023)")


@dataclasses.dataclass(frozen=True)
class ExtractionConfig:
    """How generated images are told to be memorised; after Carlini et al. 2023."""

    max_tile_distance: float = _key(
        0.1, "largest l2 over 16 tiles up to which two generations of a prompt are one picture, 0 to 1 (the paper gives no number)"
    )
    min_clique: int = _key(10, "generations that must be one picture for a prompt to count as memorised (Carlini et al. 2023)")
    max_distance: float = _key(0.15, "δ: distance to a training image up to which a generation is that image (Carlini et al. 2023)")
    max_side: int = _key(512, "generations with a longer side are reduced to this many pixels")
    device: str = _key("auto", "where distances of all pairs are computed: cpu, cuda; auto = cuda where torch finds a GPU")
    targets_per_part: int = _key(16, "targets scored by one task; a run that is stopped goes on with the parts that are missing")


@dataclasses.dataclass(frozen=True)
class ReportConfig:
    """The HTML report of a run."""

    enabled: bool = _key(True, "write report.html at the end of every run of all stages, where the extra `report` is installed")


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """What carries the tables through the stages."""

    name: str = _key("local", "the engine: local (processes and DuckDB on this machine), spark (needs Java)")
    workers: int = _key(0, "local: worker processes; 0 = one per core this process may use, fewer where there is no memory for as many")
    memory_limit: str = _key("4GB", "local: memory of the SQL engine, before it spills to disk")
    preflight: str = _key(
        "refuse", "where memory or disk seem too small before any work: refuse, or warn and go on (what is needed is estimated)"
    )
    master: str = _key("", "spark: local[*], spark://host:7077, yarn, k8s://…; empty = that of spark-submit, else local[*]")
    sends_rows: str = _key(
        "auto",
        "spark: send vectors through the shuffle (true) or let workers gather them from the run's files (false); auto = false with local[N] alone",
    )
    gpus_per_task: float = _key(
        0.0,
        "spark: GPUs of a task of `embed`, `index` or `pairs` that may use one, by stage-level scheduling; 0 = those of any task, spark.task.resource.gpu.amount",
    )
    spark: list[str] = _key([], "spark: settings NAME=VALUE of the session, such as spark.executor.memory=8g; may be given several times")


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
    components: ComponentsConfig = dataclasses.field(default_factory=ComponentsConfig)
    reference: ReferenceConfig = dataclasses.field(default_factory=ReferenceConfig)
    exclude: ExcludeConfig = dataclasses.field(default_factory=ExcludeConfig)
    keep: KeepConfig = dataclasses.field(default_factory=KeepConfig)
    targets: TargetsConfig = dataclasses.field(default_factory=TargetsConfig)
    extraction: ExtractionConfig = dataclasses.field(default_factory=ExtractionConfig)
    report: ReportConfig = dataclasses.field(default_factory=ReportConfig)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)
