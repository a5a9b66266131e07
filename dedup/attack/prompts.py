"""Prompt lists as the published detectors read them, and the table that maps what they write back to targets."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from dedup.attack.labels import read_labels
from dedup.attack.target_list import has_prompt, parquet_at, prompts_of
from dedup.contracts import JsonDict
from dedup.errors import InputError
from dedup.schemas import PROMPTS
from dedup.storage.atomic import AtomicFile
from dedup.storage.tables import FileWriter
from dedup.storage.urls import join
from dedup.text import counted

PROMPTS_FILE: Final = "prompts.parquet"
_MOST_CHARACTERS = 200  # of a prompt that onestep-extraction names a folder by
_BATCH = 1_000
# the kinds of NeMo's list, which knows two
_TYPES: Final = {"verbatim": "VM", "template": "TM"}


@dataclass(frozen=True)
class PromptSummary:
    """What was written."""

    out: str
    n_prompts: int
    n_without_caption: int  # targets that give no prompt
    n_repeated: int  # rows left out because an earlier one has their target_id
    n_one_folder: int  # prompts whose folder name others have too: generations in it can't be told apart
    files: list[str] = field(default_factory=list)


def folder_of(prompt: str) -> str:
    """The folder that onestep-extraction keeps a prompt's generations in.

    >>> folder_of("a cat / a dog")
    'a cat _ a dog'
    """
    return prompt.replace("/", "_")[:_MOST_CHARACTERS]


def one_line_prompt(prompt: str) -> str:
    r"""A prompt for a file of lines.

    >>> one_line_prompt("a cat\n on a  mat")
    'a cat on a mat'
    """
    return " ".join(prompt.split())


def write_prompts(targets: list[str], out: str, scores: str = "") -> PromptSummary:
    """Write the prompts of some lists of targets in every form that a published detector reads.

    Parameters
    ----------
    targets : list of str
        Runs' `targets/` folders, outliers, controls, or parquet with `target_id` and `caption`; written one after the other.
    out : str
        Folder for the files; each has the prompts in the same order.

        - `prompts.parquet`: `caption, url` for onestep-extraction (Webster 2023), which adds its scores to the table, beside
          `index, target_id, folder`: the table that maps folders, numbers and lines back to targets.
        - `prompts.jsonl`: `caption, index, url` (Wen et al. 2024).
        - `prompts.txt`: a prompt a line (Ren et al. 2024; the sharpness and curvature papers).
        - `prompts.csv`: `;Caption;URL;type;mean_sscd;max_sscd;Index` (NeMo, DoRI).
        - `membench.csv`: `,prompt,urls` (MemBench).
    scores : str
        Folder of `dedup extraction score`, whose labels and similarities fill NeMo's `type` and `max_sscd`.

    Raises
    ------
    InputError
        If a list can't be read, or no target has a caption.
    """
    known = _known(scores) if scores else {}
    folders, seen, counts = Counter[str](), set[str](), Counter[str]()
    names = (PROMPTS_FILE, "prompts.jsonl", "prompts.txt", "prompts.csv", "membench.csv")
    paths = [join(out, name) for name in names]
    with ExitStack() as whole_files:
        table = whole_files.enter_context(FileWriter(paths[0], PROMPTS))
        lines, texts, nemo, membench = (whole_files.enter_context(AtomicFile(path)) for path in paths[1:])
        nemo.write(_line(["", "Caption", "URL", "type", "mean_sscd", "max_sscd", "Index"], ";"))
        membench.write(_line(["", "prompt", "urls"], ","))
        waiting: list[JsonDict] = []
        for url in targets:
            for row in prompts_of(url):
                if row["target_id"] in seen or not has_prompt(row):
                    counts["repeated" if row["target_id"] in seen else "silent"] += 1
                    continue
                seen.add(row["target_id"])
                number, prompt, address = counts["written"], row["caption"], row["url"] or ""
                counts["written"] += 1
                folders[folder_of(prompt)] += 1
                waiting.append({"index": number, "folder": folder_of(prompt)} | {name: row[name] for name in _COPIED})
                lines.write(json.dumps({"caption": prompt, "index": number, "url": address}, ensure_ascii=False).encode() + b"\n")
                texts.write(one_line_prompt(prompt).encode() + b"\n")
                label, similarity = known.get(row["target_id"], ("", None))
                mark = "" if similarity is None else f"{similarity:.6f}"
                nemo.write(_line([number, prompt, address, _TYPES.get(label, ""), "", mark, number], ";"))
                membench.write(_line([number, prompt, repr([address] if address else [])], ","))
                if len(waiting) >= _BATCH:
                    table.write(pa.Table.from_pylist(waiting, schema=PROMPTS))
                    waiting.clear()
        table.write(pa.Table.from_pylist(waiting, schema=PROMPTS))
        if not counts["written"]:
            silent = counted(counts["silent"], "target")
            raise InputError(f"{' '.join(targets)}: {silent}, none with a caption; expected a list whose column caption holds prompts")
    n_shared = sum(n for n in folders.values() if n > 1)
    return PromptSummary(out, counts["written"], counts["silent"], counts["repeated"], n_shared, paths)


_COPIED = ("target_id", "caption", "url", "duplication_count")


def _known(scores: str) -> dict[str, tuple[str, float | None]]:
    """Label and similarity of each target that was scored."""
    rows = read_labels([scores]).to_pylist()
    return {row["target_id"]: (row["label"] or "", row["similarity"]) for row in rows}


def _line(cells: list[object], separator: str) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def read_prompts(url: str) -> pa.Table:
    """The table that maps numbers, folders and prompts to targets: `index, target_id, caption, folder`, in the order of the files.

    `url`: the folder that `write_prompts` wrote, or its prompts.parquet, also after a detector has added columns.
    Raises InputError if it can't be read.
    """
    path = url if url.endswith(".parquet") else join(url, PROMPTS_FILE)
    try:
        return parquet_at(path).to_table(columns=["index", "target_id", "caption", "folder"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{url} holds no table of prompts; expected the --out of `dedup extraction prompts`") from error
