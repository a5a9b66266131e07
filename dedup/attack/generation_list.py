"""What is to be generated: the prompts and seeds of a run's targets, or of a work list."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple

from dedup.attack.generations import first_seed
from dedup.attack.target_list import left_out, to_generate
from dedup.contracts import JsonDict
from dedup.errors import InputError
from dedup.storage.input.samples import one_line
from dedup.storage.urls import open_binary


class Prompt(NamedTuple):
    """The generations of one target: the k-th has the seed `first_seed + k`."""

    target_id: str
    text: str
    first_seed: int
    n_generations: int

    @property
    def seeds(self) -> range:
        """The seeds, ascending."""
        return range(self.first_seed, self.first_seed + self.n_generations)


def read_list(url: str, limit: int = 0) -> list[Prompt]:
    """What is to be generated, in the order of the list.

    `url`: a run's `targets/` folder or parquet like it, or a work list `part-*.jsonl`.
    `limit`: most targets, the first of the list; 0 = all.
    Raises InputError if there is no such list, or a line of it can't be used.
    """
    prompts = []
    for place, row in _lines(url) if url.endswith(".jsonl") else _targets(url):
        prompts.append(_prompt(row, place))
        if len(prompts) == limit:
            break
    if not prompts:
        raise InputError(f"{url} lists nothing to generate; expected one target or more; is everything generated already?")
    return prompts


def left_out_of(url: str) -> list[str]:
    """What a list of targets holds that nothing is generated of, as notes; a work list has been rid of it."""
    return [] if url.endswith(".jsonl") else left_out(url)


def _targets(url: str) -> Iterator[tuple[str, JsonDict]]:
    for number, row in to_generate(url):
        yield f"{url}, row {number}", {"target_id": row["target_id"], "prompt": row["caption"], "n_generations": row["n_generations"]}


def _lines(url: str) -> Iterator[tuple[str, JsonDict]]:
    try:
        with open_binary(url) as file:
            for number, line in enumerate(file, 1):
                yield f"{url}, line {number}", json.loads(line)
    except FileNotFoundError as error:
        raise InputError(f"{url} does not exist; expected a run's targets/ folder, or a list of `dedup extraction work`") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{url} can't be read as JSON lines: {one_line(error)}; write it again with `dedup extraction work`") from error


def _prompt(row: JsonDict, place: str) -> Prompt:
    if not isinstance(row, dict):
        raise InputError(f"{place}: expected an object, found {type(row).__name__}; write the list with `dedup extraction work`")
    target_id, text, n_generations = row.get("target_id"), row.get("prompt"), row.get("n_generations")
    # it names a folder, and readers pass over names that begin otherwise
    if not isinstance(target_id, str) or not target_id or target_id.startswith(("_", ".")) or "/" in target_id:
        raise InputError(f"{place}: target_id is {target_id!r}; expected a name for a folder, without '/', '_' or '.' in front; correct it")
    if not isinstance(text, str):
        raise InputError(f"{place}: the prompt of {target_id} is {text!r}; expected a text; leave the line out, or correct it")
    if type(n_generations) is not int or n_generations < 1:
        raise InputError(f"{place}: n_generations of {target_id} is {n_generations!r}; expected 1 or more; correct it")
    seed = row["first_seed"] if "first_seed" in row else first_seed(target_id)
    if type(seed) is not int or not 0 <= seed < 2**63 - n_generations:
        raise InputError(f"{place}: first_seed of {target_id} is {seed!r}; expected a whole number from 0 to 2^63; correct it")
    return Prompt(target_id, text, seed, n_generations)
