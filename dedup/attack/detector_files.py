"""Files that detectors of memorisation write: a score for each prompt, found by its target, its number, its text or its order."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dedup.contracts import JsonDict
from dedup.errors import ConfigError, InputError
from dedup.storage.input.samples import one_line

BY_ID: Final = "target_id"
BY_NUMBER: Final = ("index", "Index")
_BY_PROMPT: Final = ("caption", "prompt", "Caption", "Prompt")
_LOOKED_AT: Final = 100  # rows that say which columns are numbers
_OTHER: Final = (*BY_NUMBER, *_BY_PROMPT, BY_ID, "url", "URL", "urls", "folder", "duplication_count", "type", "")


@dataclass(frozen=True)
class DetectorFile:
    """Scores of one detector: the name of the detector, its file, and the table of prompts whose order the file has."""

    name: str
    path: str
    prompts: str = ""

    @classmethod
    def parse(cls, text: str) -> DetectorFile:
        """Of `NAME=FILE` or `NAME=FILE@PROMPTS`.

        >>> DetectorFile.parse("wen=det.jsonl@prompts")
        DetectorFile(name='wen', path='det.jsonl', prompts='prompts')
        """
        name, equals, rest = text.partition("=")
        path, _, prompts = rest.partition("@")
        if not name or not equals or not path:
            raise ConfigError(f"{text}: expected NAME=FILE, or NAME=FILE@PROMPTS with the folder of `dedup extraction prompts`")
        return cls(name, path, prompts)


def read_scores(detector: DetectorFile) -> tuple[list[tuple[Any, float]], str]:
    """Key and score of each row, and which column the keys are of: empty where rows have only their order.

    Raises InputError if the file can't be read, has no rows, or more than one column that may be the score.
    """
    path = detector.path
    try:
        if path.endswith(".npy"):
            array = np.atleast_1d(np.load(path, allow_pickle=False))
            return [(number, _number(value)) for number, value in enumerate(array)], ""
        if path.endswith(".parquet"):
            records = pq.read_table(path).to_pylist()
        elif path.endswith((".jsonl", ".ndjson")):
            records = _json_lines(path)
        elif path.endswith((".csv", ".tsv")):
            records = _csv_rows(path)
        else:
            with open(path, encoding="utf-8") as lines:
                return [(number, _number(line.strip())) for number, line in enumerate(lines) if line.strip()], ""
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; expected a file of scores, .jsonl, .csv, .npy, .parquet or a number a line") from error
    except (OSError, ValueError, pa.ArrowInvalid) as error:
        raise InputError(
            f"{path} can't be read as scores: {one_line(error)}; expected .jsonl, .csv, .npy, .parquet or a number a line"
        ) from error
    if not records:
        raise InputError(f"{path} has no rows; expected a score for each prompt")
    column = _score_column(detector, records)
    by = next((name for name in (BY_ID, *BY_NUMBER, *_BY_PROMPT) if name in records[0]), "")
    return [(record.get(by) if by else number, _number(record.get(column))) for number, record in enumerate(records)], by


def _json_lines(path: str) -> list[JsonDict]:
    with open(path, encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines if line.strip()]
    if records and not isinstance(records[0], dict):
        return [{"score": record} for record in records]
    return records


def _csv_rows(path: str) -> list[JsonDict]:
    with open(path, encoding="utf-8", newline="") as file:
        header = file.readline()
        file.seek(0)
        separator = max("\t;,", key=header.count) if any(mark in header for mark in "\t;,") else ","
        return list(csv.DictReader(file, delimiter=separator))


def _score_column(detector: DetectorFile, records: list[JsonDict]) -> str:
    """The column with the detector's name, or the only one that holds numbers."""
    if detector.name in records[0]:
        return detector.name
    numeric = [
        name for name in records[0] if name not in _OTHER and any(np.isfinite(_number(record.get(name))) for record in records[:100])
    ]
    if len(numeric) == 1:
        return numeric[0]
    found = f"columns of numbers {', '.join(numeric)}" if numeric else "no column of numbers"
    expected = f"expected a column {detector.name}, or one column of numbers"
    raise InputError(f"{detector.path}: {expected}; found {found}; name the detector as its column")


def _number(value: Any) -> float:
    """A score; of nested lists, such as a norm for each image and step, the mean; NaN for what is no number."""
    if isinstance(value, list | tuple | np.ndarray):
        flat = [_number(entry) for entry in value]
        return float(np.mean(flat)) if flat else float("nan")
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
