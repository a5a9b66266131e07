"""How a run was made: seconds and rates of its stages, and its configuration."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from dedup.config.keys import KEYS, values_of
from dedup.report.asking import Row
from dedup.report.figures import parts
from dedup.report.reported import HOMES, ReportedRun
from dedup.report.texts import Text, cut
from dedup.text import seconds_text


def stages(run: ReportedRun) -> list[Row]:
    """Seconds and rate of each stage, and what it wrote."""
    n = run.records["embed"].rows["metadata"]
    rows: list[Row] = []
    for name in HOMES:
        record = run.records.get(name)
        if record is None:
            rows.append({"name": name, "seconds": None, "time": "not finished", "rate": None, "rows": "", "finished": "", "version": ""})
            continue
        own = n - record.summary.get("n_base_samples", 0) if name == "embed" else n
        rate = own / record.seconds if record.seconds else None
        tables = ", ".join(f"{table} {count:,}" for table, count in record.rows.items())
        finished = record.finished.replace("T", " ").removesuffix("+00:00")
        rows.append(
            {"name": name, "seconds": record.seconds, "time": seconds_text(record.seconds), "rate": rate, "rows": tables}
            | {"finished": finished, "version": record.dedup_version}
        )
    bars = parts([("near", str(row["name"]), round(1000 * (row["seconds"] or 0.0))) for row in rows], is_stacked=False)
    return [row | {"part": bar} for row, bar in zip(rows, bars, strict=True)]


@dataclass(frozen=True)
class Setting:
    """A configuration key with its value."""

    key: str
    value: Text
    default: Text
    is_default: bool
    means: str


def settings(run: ReportedRun) -> list[Setting]:
    """The configuration of the run; how it was carried out (`engine`) is no part of what a run keeps."""
    found = []
    for name, value in values_of(run.config).items():
        key = KEYS[name]
        if name.partition(".")[0] not in ("engine", "extraction", "report"):
            found.append(Setting(name, _shown(value), _shown(key.default), value == key.default, key.meaning))
    return found


def _shown(value: Any) -> Text:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (list, bool)) else str(value)
    return cut(text, most=400) or Text("")
