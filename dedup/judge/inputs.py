"""What a task is handed to judge pairs of samples: how, where their images lie, what is known of them already."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dedup.config.encoders import encoder_kind
from dedup.contracts import Engine, Table
from dedup.encoders.dct import turns
from dedup.judge.pair import JudgeSettings, PairJudge, Pixels
from dedup.judge.verdicts import VERDICTS
from dedup.numerics.judge.picture import use_one_thread
from dedup.numerics.similarity import Turn
from dedup.runs.directory import Run
from dedup.storage.images.reader import Place
from dedup.storage.tables import ask

PLACES = pa.schema(
    [("sample_id", pa.int64()), ("shard", pa.string()), ("key", pa.string()), ("byte_offset", pa.int64()), ("n_bytes", pa.int64())]
)

PLACES_SQL = """
SELECT {columns}
FROM metadata JOIN wanted ON metadata.sample_id = wanted.sample_id
ORDER BY metadata.sample_id
"""


@dataclass(frozen=True)
class Space:
    """Vectors that images are compared by.

    Parameters
    ----------
    run_dir : str
        Where `embeddings/img_emb` lies.
    """

    run: Run
    encoder: str
    min_similarity: float

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Ways to turn a vector as its image is turned, searched or not."""
        return turns() if encoder_kind(self.encoder).can_turn else ()


@dataclass(frozen=True)
class JudgeInputs:
    """The same for all tasks that judge pairs."""

    settings: JudgeSettings
    places: pa.Table  # of `PLACES`, for every sample that may be asked for
    verdicts: pa.Table = field(default_factory=VERDICTS.empty_table)  # of `VERDICTS`: pairs that the base of the run has judged
    spaces: tuple[Space, ...] = ()  # what the samples are compared in; the run's own first

    def judge(self) -> PairJudge:
        """The judge of a worker's task."""
        # one thread per worker, as for all else that workers do
        use_one_thread()
        reader = self.settings.reader()
        places = {row["sample_id"]: Place(**row) for row in self.places.to_pylist()}
        reader.prefetch(list(places.values()))

        def read(sample_id: int) -> Pixels:
            return reader.read(places[sample_id])

        return PairJudge(self.settings, read, self.verdicts)


def find_places(engine: Engine, metadata: Table, sample_ids: npt.NDArray[np.int64], schema: pa.Schema = PLACES) -> pa.Table:
    """Where the images of samples lie, and whatever else of `metadata` a schema names, ordered by sample_id."""
    columns = ", ".join(f"metadata.{name} AS {name}" for name in schema.names)
    wanted = pa.table({"sample_id": sample_ids})
    return ask(engine, PLACES_SQL.format(columns=columns), {"metadata": metadata, "wanted": wanted}, schema)
