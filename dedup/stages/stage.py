"""What every stage is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dedup.config import Config, EmbedConfig, EncoderConfig
from dedup.config.encoders import encoder_kind
from dedup.contracts import Engine, GroupSource, GroupWork, JsonDict, Pack, Progress, Reporter, Result, Task
from dedup.encoders.dct import turn_names, turns
from dedup.numerics.search.gpu import Device, choose_device
from dedup.numerics.similarity import Turn
from dedup.runs.directory import RunLayout, also_dir, read_record
from dedup.storage.tables import clear

_GPU_FROM = 200_000  # vectors that a core compares in some ten seconds, which torch and CUDA take to start in each worker


class SilentReporter:
    """Takes progress and notes and does nothing with them."""

    def progress(self, progress: Progress) -> None:
        """Ignore."""

    def note(self, text: str) -> None:
        """Ignore."""


@dataclass(frozen=True)
class Space:
    """Vectors that images are compared by.

    Parameters
    ----------
    run_dir : str
        Where `embeddings/img_emb` lies.
    encoder : str
    min_similarity : float
    """

    run_dir: str
    encoder: str
    min_similarity: float

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Ways to turn a vector as its image is turned, searched or not."""
        return turns() if encoder_kind(self.encoder).can_turn else ()


@dataclass(frozen=True)
class StageContext:
    """Configuration, tables, engine and reporter of a run."""

    config: Config
    engine: Engine
    reporter: Reporter = field(default_factory=SilentReporter)
    samples_dir: str = ""

    @property
    def layout(self) -> RunLayout:
        """Where the run's tables lie."""
        return RunLayout(self.config.output.run_dir, tuple(self.config.input.carry), self.samples_dir)

    @property
    def base(self) -> RunLayout | None:
        """Where the tables of the run lie that this one adds to, if it adds to one; also those of its second source of candidates."""
        run_dir = self.config.base.run_dir
        return RunLayout(run_dir, tuple(self.config.input.carry)) if run_dir else None

    @property
    def also(self) -> StageContext | None:
        """The same samples seen by the second source of candidates, if there is one: other vectors, lists and threshold."""
        config = self.config
        if not config.embed.also:
            return None
        name = config.embed.also[0]
        own = replace(
            config,
            encoder=EncoderConfig(name=name),
            embed=EmbedConfig(),
            output=replace(config.output, run_dir=also_dir(config.output.run_dir, name)),
            base=replace(config.base, run_dir=also_dir(config.base.run_dir, name) if config.base.run_dir else ""),
            search=replace(config.search, min_similarity=config.search.also_min_similarity, method="lists"),
            # whoever comes back to the index asks with the run's own encoder
            index=replace(config.index, codes="none"),
        )
        return replace(self, config=own, samples_dir=config.output.run_dir)

    @property
    def confirms(self) -> bool:
        """Whether pairs are judged by their pixels: embeddings that were made elsewhere may not say where those are."""
        if encoder_kind(self.config.encoder.name).has_images or not self.config.confirm.enabled:
            return self.config.confirm.enabled
        record = read_record(self.layout.run_dir, "embeddings")
        return record is not None and bool(record.summary.get("has_pixels"))

    def device(self, n_vectors: int) -> str:
        """Where tasks compute products of so many vectors, for `choose_device`: cpu where no GPU is worth its start."""
        device = self.config.engine.device
        return "cpu" if device == "auto" and n_vectors < _GPU_FROM else device

    def driver_device(self, n_vectors: int) -> Device | None:
        """Where the driver computes products: it may have no GPU although its workers must."""
        return None if self.device(n_vectors) == "cpu" else choose_device("auto")

    @property
    def spaces(self) -> tuple[Space, ...]:
        """What images are compared in: the run's own vectors, then those of the second source of candidates."""
        own = Space(self.layout.run_dir, self.config.encoder.name, self.config.search.min_similarity)
        return (own,) if self.also is None else (own, *self.also.spaces)

    def write_sql(self, name: str, query: str, sources: Sequence[str]) -> int:
        """Write a table anew from a query over other tables; returns its rows."""
        table = self.layout.table(name)
        clear(table)
        return self.engine.sql_to(query, {source: self.layout.table(source) for source in sources}, table)

    def write_all(self, stage: str, queries: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, int]:
        """Write tables from queries, in order, with progress; returns the rows of each.

        Parameters
        ----------
        stage : str
        queries : mapping
            Table to (query, tables it reads); later ones may read earlier ones.
        """
        rows: dict[str, int] = {}
        self.reporter.progress(Progress(stage, 0, len(queries), "tables"))
        for name, (query, sources) in queries.items():
            rows[name] = self.write_sql(name, query, sources)
            self.reporter.progress(Progress(stage, len(rows), len(queries), "tables"))
        return rows

    def run_tasks(
        self, stage: str, unit: str, work: Callable[[Task], Result], tasks: Sequence[Task], sizes: Sequence[int], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Run tasks on the engine with progress in units of `sizes`; yields (position, result) as they end."""
        done, total = 0, sum(sizes)
        self.reporter.progress(Progress(stage, 0, total, unit))
        for number, result in self.engine.map_partitions(work, tasks, uses_gpu=uses_gpu):
            done += sizes[number]
            self.reporter.progress(Progress(stage, done, total, unit))
            yield number, result

    def run_groups(
        self, stage: str, unit: str, source: GroupSource, work: GroupWork[Result], packs: Sequence[Pack], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Run packs of groups on the engine with progress in groups; yields (pack, result) as they end."""
        # a group that is shared out counts with its first share
        sizes = [0 if pack.share else len(pack.groups) for pack in packs]
        done, total = 0, sum(sizes)
        self.reporter.progress(Progress(stage, 0, total, unit))
        for number, result in self.engine.map_groups(source, work, packs, uses_gpu=uses_gpu):
            done += sizes[number]
            self.reporter.progress(Progress(stage, done, total, unit))
            yield number, result

    def note_left(self, unit: str, n_left: int) -> None:
        """Say how many strips of products a GPU had no memory for."""
        if n_left:
            self.reporter.note(f"pairs: {n_left:,} strips of {unit} were compared on the CPU, for lack of memory on the GPU")


@dataclass(frozen=True)
class StageResult:
    """What a stage reports: rows of each table written and figures for the summary."""

    rows: dict[str, int]
    summary: JsonDict = field(default_factory=dict)


ROTATED = "rotated"  # by an angle that the look at the pixels has yet to find

VARIANT_NAMES = ("none", *turn_names(), ROTATED)

QUARTER_TURNS = ("none", "rotate90", "rotate270", "rotate180")
