"""The explanation of one sample, as plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Outcome = Literal["kept_unique", "kept_keeper", "kept_further", "dropped_exact", "dropped_near", "dropped_thinned", "excluded", "rejected"]


@dataclass(frozen=True)
class Sample:
    """A sample, with its metadata and its place in the shard."""

    shard: str
    key: str
    sample_id: int | None = None  # None for a rejected sample, like all that follows
    url: str | None = None
    caption: str | None = None
    sha256: str | None = None
    width: int | None = None  # pixels
    height: int | None = None
    n_bytes: int | None = None  # of the encoded image
    byte_offset: int | None = None  # where it starts in the tar; None in a compressed one

    @property
    def name(self) -> str:
        """Its key and the name of its shard; the key alone in a folder, where keys are paths."""
        return self.key if self.shard.endswith("/") else f"{self.key} in {self.shard.rpartition('/')[2]}"


@dataclass(frozen=True)
class Step:
    """An edge of the run, as the table `edges` has it, with `src < dst`."""

    src: int  # a sample_id, like dst
    dst: int
    similarity: float
    kind: str  # exact or near
    variant: str  # how src was turned to meet dst
    source: str  # which embeddings were similar: whole, look, …
    found_by: str | None  # the encoders that found it
    confirmed: bool | None  # whether the pixels confirmed it; None where they were not compared
    distance: float | None  # of the parts that agree least, 0 to 1


@dataclass(frozen=True)
class Refusal:
    """A pair of similar images that are not copies."""

    other: Sample
    similarity: float
    variant: str
    source: str
    found_by: str | None
    reason: str  # a word of the table `refused`
    distance: float | None
    moved: float | None
    stage: str  # which judged it: confirm, groups or manifest
    is_kept: bool  # whether the manifest keeps the other
    is_same_group: bool  # whether both are in one group all the same, through other members


@dataclass(frozen=True)
class Rule:
    """The rule that put one sample before another."""

    term: str  # a term of `keep.order_by`, such as ``width*height desc``, or keep.prefer_base
    value: Any  # of the preferred sample
    other_value: Any
    preferred: Sample
    other: Sample


@dataclass(frozen=True)
class OtherKeeper:
    """A sample of the same group that was kept before this one."""

    sample: Sample
    similarity: float | None  # cosine of the whole images; None where the vectors are gone
    min_similarity: float | None  # threshold of the two
    refused: str | None  # why they are no copies, where their pixels were compared


@dataclass(frozen=True)
class Component:
    """The group of copies a sample is in, and the connected component that was cut into such groups."""

    component_id: int
    duplication_count: int  # samples in the group
    n_kept: int
    n_dropped: int
    n_excluded: int
    raw_component_id: int
    # n_raw_members, n_raw_groups: samples of the connected component, and groups it was cut into: more than one where a chain was cut
    n_raw_members: int = 1
    n_raw_groups: int = 1
    anchor: Sample | None = None  # which every member was compared with; None for a sample without edges
    similarity_to_anchor: float | None = None
    distance_to_anchor: float | None = None


@dataclass(frozen=True)
class Exclusion:
    """Why a sample must not be trained on: a row of the table `exclusions`."""

    reason: str
    excluded_by: str
    reference_shard: str | None
    similarity_to_reference: float | None
    distance_to_reference: float | None


@dataclass(frozen=True)
class Rejection:
    """Why a sample could not be used: a row of the table `rejected`."""

    shard: str
    key: str
    member: str | None  # which image of the sample; None in a folder, and where it has none
    reason: str
    detail: str


@dataclass(frozen=True)
class Explanation:
    """Why a sample was kept or dropped."""

    run_dir: str
    # outcome: kept_unique, kept_keeper (of a group), kept_further (beside others of its group), dropped_exact, dropped_near,
    # dropped_thinned (by keep.templates or keep.scenes), excluded or rejected
    outcome: Outcome
    reason: str  # the same in a sentence
    sample: Sample
    keeper: Sample | None = None  # what a dropped sample is a copy of, or of one template or scene with
    # similarity_to_keeper, distance_to_keeper: of the two images compared directly, whatever path joins them
    similarity_to_keeper: float | None = None
    distance_to_keeper: float | None = None
    edits: tuple[str, ...] = ()  # what was done to it, as the other copies of its group show: names of docs/originality.md
    n_copies: int = 0  # samples dropped in favour of this one
    copies: tuple[Sample, ...] = ()  # some of them, the most similar first
    component: Component | None = None  # None for a rejected sample
    n_neighbors: int = 0  # other samples at `min_similarity` or above
    min_similarity: float = 0.0  # the run's threshold
    rule: Rule | None = None  # why the keeper ranks before this sample, or this sample before the best of its copies
    path_samples: tuple[Sample, ...] = ()  # from the sample to its keeper, along the path whose weakest edge is the most similar
    path: tuple[Step, ...] = ()  # its edges, one fewer
    edges: tuple[Step, ...] = ()  # the most similar edges of the sample itself, or of the first with its bytes
    edge_samples: tuple[Sample, ...] = ()  # their other ends
    n_edges: int = 0  # number of edges it has in all
    other_keepers: tuple[OtherKeeper, ...] = ()  # for kept_further: samples of its group kept before it
    refused: tuple[Refusal, ...] = ()  # the most similar of its refused pairs
    n_refused: int = 0  # number of refused pairs in all
    exclusion: Exclusion | None = None
    rejections: tuple[Rejection, ...] = ()  # rows of `rejected` with this shard and key: only the first sample with a key is embedded

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
