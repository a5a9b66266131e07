"""What a stage is, and what it is handed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from dedup.config import Config, EmbedConfig, EncoderConfig
from dedup.config.keys import keys_of, values_of
from dedup.contracts import Engine, GroupSource, GroupWork, JsonDict, Pack, Progress, Reporter, Result, SilentReporter, Task, reported
from dedup.judge.pair import JudgeSettings, Space
from dedup.numerics.search.gpu import Device, choose_device
from dedup.runs.directory import Run
from dedup.runs.record import Difference, StageRecord
from dedup.storage.tables import clear

_GPU_FROM = 200_000  # vectors that a core compares in some ten seconds, which torch and CUDA take to start in each worker


@dataclass(frozen=True)
class StageInputs:
    """What a stage reads besides tables of the run."""

    identity: JsonDict = field(default_factory=dict)  # a digest of each, for the stage's record
    sources: Mapping[str, tuple[Any, str]] = field(default_factory=dict)  # URL to (what `embed` reads, its fingerprint), by URL
    encoder: dict[str, str] = field(default_factory=dict)  # the encoder's fingerprint
    passed_over: Mapping[str, int] = field(default_factory=dict)  # files that the input matches, but that are not read, by reason
    moved: Any = None  # of `embed`: where sources of the base lie now


@dataclass(frozen=True)
class StageContext:
    """What a stage runs with: configuration, run directory, engine and reporter."""

    config: Config
    engine: Engine
    reporter: Reporter = field(default_factory=SilentReporter)
    samples: Run | None = None  # the run that holds the samples, where it is another
    inputs: StageInputs = field(default_factory=StageInputs)
    identity: str = ""  # digest of the configuration and encoder that the stage's result depends on

    @property
    def run(self) -> Run:
        """The run directory that is written."""
        return Run(self.config.output.run_dir, self.config, self.samples)

    @property
    def base(self) -> Run | None:
        """The run that this one adds to, if any; for a second source of candidates, that run's second source."""
        url = self.config.base.run_dir
        return Run(url, replace(self.config, output=replace(self.config.output, run_dir=url))) if url else None

    @property
    def also(self) -> StageContext | None:
        """The second source of candidates, if there is one: the same samples with other vectors, lists and threshold."""
        config = self.config
        if not config.embed.also:
            return None
        name = config.embed.also[0]
        second = replace(
            config,
            encoder=EncoderConfig(name=name),
            embed=EmbedConfig(also=[]),
            output=replace(config.output, run_dir=self.run.second(name).url),
            base=replace(config.base, run_dir=self.base.second(name).url if self.base is not None else ""),
            search=replace(config.search, min_similarity=config.search.also_min_similarity, method="lists"),
            # later look-ups use the run's own encoder, so this index would never be searched
            index=replace(config.index, codes="none"),
        )
        return replace(self, config=second, samples=self.run)

    @property
    def judge_settings(self) -> JudgeSettings | None:
        """How pairs are judged; None where confirmation is off."""
        return JudgeSettings.of(self.config) if self.run.judges_pixels else None

    def device(self, n_vectors: int) -> str:
        """Where tasks compute products of so many vectors, for `choose_device`: cpu where starting a GPU does not pay."""
        device = self.config.engine.device
        return "cpu" if device == "auto" and n_vectors < _GPU_FROM else device

    def driver_device(self, n_vectors: int) -> Device | None:
        """Where the driver computes products: it may lack the GPU that its workers must have."""
        return None if self.device(n_vectors) == "cpu" else choose_device("auto")

    @property
    def spaces(self) -> tuple[Space, ...]:
        """The vector spaces that images are compared in: the run's own, then that of the second source of candidates."""
        first = Space(self.run, self.config.encoder.name, self.config.search.min_similarity)
        return (first,) if self.also is None else (first, *self.also.spaces)

    def write_sql(self, name: str, query: str, sources: Sequence[str]) -> int:
        """Write a table anew from a query over other tables; returns its rows."""
        table = self.run.table(name)
        clear(table)
        return self.engine.sql_to(query, {source: self.run.table(source) for source in sources}, table)

    def write_all(self, stage: str, queries: Mapping[str, tuple[str, Sequence[str]]]) -> dict[str, int]:
        """Write tables from queries, in order, with progress; returns the rows of each.

        `queries`: table to (query, tables it reads); later ones may read earlier ones.
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
        return reported(self.engine.map_partitions(work, tasks, uses_gpu=uses_gpu), sizes, self.reporter, stage, unit)

    def run_groups(
        self, stage: str, unit: str, source: GroupSource, work: GroupWork[Result], packs: Sequence[Pack], *, uses_gpu: bool = False
    ) -> Iterator[tuple[int, Result]]:
        """Run packs of groups on the engine with progress in groups; yields (pack, result) as they end."""
        # a group split into shares counts with its first share
        sizes = [0 if pack.share else len(pack.groups) for pack in packs]
        return reported(self.engine.map_groups(source, work, packs, uses_gpu=uses_gpu), sizes, self.reporter, stage, unit)

    def note_left(self, unit: str, n_left: int) -> None:
        """Say how many strips of products a GPU had no memory for."""
        if n_left:
            self.reporter.note(f"pairs: {n_left:,} strips of {unit} were compared on the CPU, for lack of memory on the GPU")


@dataclass(frozen=True)
class StageResult:
    """What a stage reports: rows of each table written and figures for the summary."""

    rows: dict[str, int]
    summary: JsonDict = field(default_factory=dict)


class Refusal(Protocol):
    """Stops a stage before any work, by raising."""

    def __call__(self, config: Config, inputs: StageInputs, record: StageRecord | None, *, redo: bool) -> None:
        """`record` is that of the finished stage, if any; `redo`: whether it may be done again."""


@dataclass(frozen=True)
class Stage:
    """A step of a run: what it reads, what its result depends on, and what it does. Each stage's module ends with its `STAGE`."""

    name: str
    reads: tuple[str, ...]  # stages whose results it reads
    output_version: int  # raised only when its result changes, so that a patch release redoes nothing
    run: Callable[[StageContext], StageResult]
    inputs: Callable[[Config], StageInputs] = lambda config: StageInputs()  # what it reads besides, before any work
    refuse: Refusal | None = None
    # what differs between what it has read besides and what it would read now, in words; '' where that is not known
    changed_inputs: Callable[[Config, StageInputs], str] = lambda config, inputs: ""
    # whether it takes an input that has changed since it finished, without being told to: of folders, whose files come and go
    takes_changes: Callable[[Config], bool] = lambda config: False
    # whether it reads the samples: their input must be given, their number may be unknown before, and the run begins with it
    reads_samples: bool = False
    reads_base: Callable[[Config], bool] = lambda config: False  # whether its result depends on the same stage's in `base.run_dir`
    told_again: tuple[str, ...] | None = None  # keys that must be given again where its finished result is used; None = all its keys

    def picked(self, config: Config) -> JsonDict:
        """The keys that its result depends on, besides those of the stages before it, with their values."""
        values = values_of(config)
        return {key: values[key] for key in keys_of(self.name)}

    def changes(self, record: StageRecord, config: Config) -> list[Difference]:
        """What a configuration, or this version, would change in its finished result."""
        return record.differences(replace(record, config=self.picked(config), output_version=self.output_version))


def always(config: Config) -> bool:
    """For `Stage.reads_base`."""
    return True
