"""Chooses what is drawn of a run: groups of copies as galleries, and pairs that are copies, almost are, or are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dedup.numerics.graph.originality import EDITS
from dedup.numerics.judge.compare import REASONS
from dedup.report import queries
from dedup.report.below import BelowSample, sample_below
from dedup.report.cards import Card, Gallery, Pair, pair_of
from dedup.report.figures import SIMILARITY_BINS, Reason, lowest_shown, reasons_of
from dedup.report.queries import Row, TableReader
from dedup.runs.directory import Run
from dedup.storage.tables import read_table
from dedup.text import cut, similarity_text

_PER_REASON = 8
_PER_EDIT = 4
_N_POOREST = 12
_N_NEAR_LIMIT = 8
_N_BELOW = 12
_LOOKED_UP = 500  # of the most similar pairs below the threshold: some are in one group all the same
LARGE_SHOWN = 24  # members of a large or random group: keepers, the most and the least similar copies
SMALL_SHOWN = 8
N_BORDERLINE = 12
_N_LOOSE = 8
_N_CHAINS = 8
_EXACT_SHOWN = 2
_N_LISTED = 1_000  # groups in the table


@dataclass(frozen=True)
class Galleries:
    """All groups that are drawn, by section."""

    largest: list[Gallery]
    random: list[Gallery]
    weakest: list[Gallery]
    loosest: list[Gallery]
    chains: list[Gallery]  # each card the anchor of a piece
    listed: list[Row]  # the largest groups, for the table
    n_groups: int  # groups of the run


@dataclass(frozen=True)
class Pairs:
    """Pairs that are drawn."""

    refused: list[tuple[Reason, list[Pair]]]
    below: list[Pair]  # just below the threshold, and in no common group
    # confirmed, nearly: confirmed by the pixels with the largest distances, and refused with the smallest
    confirmed: list[Pair]
    nearly: list[Pair]
    sample: BelowSample | None  # none where the vectors are gone
    edited: list[tuple[str, list[Pair]]]  # for each edit some dropped samples that it was done to, beside what was kept
    poorest: list[tuple[str, list[Card]]]  # kept samples with least detail, and with fewest pixels


def galleries(reader: TableReader, run: Run, *, n: int, seed: int) -> Galleries:
    """Choose groups and their members: the n largest, n at random, and those that the threshold hardly joins."""
    chains = _chains(reader, run)
    if "statistics" not in run.records:
        return Galleries([], [], [], [], chains, [], run.records["groups"].summary.get("n_groups", 0))
    listed = reader.rows(queries.LARGEST, n=max(_N_LISTED, n))
    drawn = reader.rows(queries.RANDOM, n=n, shift=(seed * 69_069 + 12_345) % 2_147_483_647)
    loose = reader.rows(queries.LOOSEST, n=_N_LOOSE, threshold=run.config.search.min_similarity) if run.judges_pixels else []
    edges = reader.rows(queries.WEAKEST, n=N_BORDERLINE)
    named = {row["component_id"]: row for row in reader.rows(queries.NAMED, chosen=[row["component_id"] for row in edges])}
    edges = [row for row in edges if row["component_id"] in named]
    shown = [row["component_id"] for row in [*listed[:n], *drawn, *loose, *edges]]
    members = _Members(reader, shown, bool(run.records["manifest"].rows.get("excluded")))
    return Galleries(
        [members.gallery(row, LARGE_SHOWN) for row in listed[:n]],
        [members.gallery(row, LARGE_SHOWN) for row in drawn],
        [members.gallery(named[row["component_id"]], SMALL_SHOWN, row) for row in edges],
        [members.gallery(row, SMALL_SHOWN) for row in loose],
        chains,
        [row | {"caption": cut(row["caption"], row["n_characters"])} for row in listed],
        run.records["statistics"].summary["n_components"],
    )


class _Members:
    """The members of chosen groups that may be shown."""

    def __init__(self, reader: TableReader, component_ids: Iterable[int], has_excluded: bool) -> None:
        chosen = sorted(set(component_ids))
        self._kept = _by_component(reader.rows(queries.KEPT, chosen=chosen, n=LARGE_SHOWN))
        self._copies = _by_component(reader.rows(queries.COPIES, chosen=chosen, n=LARGE_SHOWN))
        self._excluded = _by_component(reader.rows(queries.LEFT_OUT, chosen=chosen, n=SMALL_SHOWN) if has_excluded else [])

    def gallery(self, row: Row, most: int, edge: Row | None = None) -> Gallery:
        """The gallery of a group from its row of statistics; with an edge, both ends of that edge are shown."""
        group = row["component_id"]
        kept, copies, excluded = self._kept.get(group, []), self._copies.get(group, []), self._excluded.get(group, [])
        # where a group has several keepers, each copy names its own
        keeper_names = {member["sample_id"]: f"keeper {place}" for place, member in enumerate(kept, 1)} if len(kept) > 1 else {}
        cards = [Card(member["sample_id"], "kept", note=keeper_names.get(member["sample_id"], "")) for member in kept[: max(1, most // 2)]]
        cards += [Card(member["sample_id"], "excluded") for member in excluded[: most // 4]]
        ends = {edge["src"], edge["dst"]} if edge else set()
        for member in _most_and_least(copies, most - len(cards), ends):
            of_keeper = f"of {keeper_names[member['keeper_id']]}" if member["keeper_id"] in keeper_names else ""
            cards.append(Card(member["sample_id"], member["kind"], member["similarity"], member["distance"], of_keeper))
        counted = {"samples": "duplication_count", "byte-identical": "n_exact", "captions": "n_captions", "urls": "n_urls"}
        facts = [(name, f"{row[column]:,}") for name, column in counted.items()]
        facts.append(("weakest to its anchor", similarity_text(row["min_similarity"])))
        weakest = row["min_similarity"]
        if edge:
            weakest = edge["similarity"]
            facts.append(("weakest pair that joins it", similarity_text(edge["similarity"])))
            if edge["distance"] is not None:
                facts.append(("its distance", similarity_text(edge["distance"])))
        caption = cut(row["caption"], row["n_characters"])
        return Gallery(group, row["duplication_count"], facts, caption, cards, row["n_exact"], weakest)


def _by_component(rows: Sequence[Row], name: str = "component_id") -> dict[int, list[Row]]:
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row[name], []).append(row)
    return groups


def _most_and_least(copies: list[Row], n: int, always: set[int]) -> list[Row]:
    """The most and the least similar copies, in their order, with those that are always shown.

    Byte-identical copies look like the keeper: where there is no room for all, few of them are shown.
    """
    if len(copies) <= n:
        return copies
    named = {row["sample_id"] for row in copies} & always
    exact = [row["sample_id"] for row in copies if row["kind"] == "exact" and row["sample_id"] not in named]
    n_near = len(copies) - len(exact) - len(named)
    dropped = set(exact[max(_EXACT_SHOWN, n - len(named) - n_near) :])
    others = [row["sample_id"] for row in copies if row["sample_id"] not in dropped | named]
    room = max(1, n - len(named))
    chosen = named | set(others if len(others) <= room else [*others[: room - room // 2], *others[len(others) - room // 2 :]])
    return [row for row in copies if row["sample_id"] in chosen]


def _chains(reader: TableReader, run: Run) -> list[Gallery]:
    """Connected components that were cut into several groups: a card for the anchor of each piece."""
    is_any_cut = run.records["groups"].summary.get("n_split", 1) > 0
    rows = reader.rows(queries.CHAINS, n=_N_CHAINS) if is_any_cut else []
    chosen = [row["raw_component_id"] for row in rows]
    pieces = _by_component(reader.rows(queries.PIECES, chosen=chosen, n=SMALL_SHOWN), "raw_component_id")
    chains = []
    for row in rows:
        component_id = row["raw_component_id"]
        cards = [Card(piece["anchor_id"], "piece", note=_samples(piece["n_samples"])) for piece in pieces[component_id]]
        facts = [("samples", f"{row['n_samples']:,}"), ("groups it was cut into", f"{row['n_groups']:,}")]
        chains.append(Gallery(component_id, row["n_samples"], facts, None, cards, n_cards=row["n_groups"]))
    return chains


def _samples(n: int) -> str:
    return f"{n:,} sample{'' if n == 1 else 's'}"


def pairs(reader: TableReader, run: Run, *, seed: int) -> Pairs:
    """Choose the pairs that are drawn."""
    reasons = reasons_of(reader.rows(queries.REFUSED, n=_PER_REASON), REASONS, "refused")
    sample = _sample_below(run, seed)
    nearly = reader.rows(queries.NEARLY, n=_N_NEAR_LIMIT, max_distance=run.config.confirm.max_distance) if reasons else []
    return Pairs(
        [(reason, [pair_of(row, _details(row), row["reason"]) for row in reason.examples]) for reason in reasons],
        [] if sample is None else _below(reader, sample),
        [pair_of(row, _details(row)) for row in reader.rows(queries.FARTHEST, n=_N_NEAR_LIMIT)],
        [pair_of(row, _details(row), "different") for row in nearly],
        sample,
        _edited(reader, run),
        _poorest(reader) if run.has_pixels else [],
    )


def _edited(reader: TableReader, run: Run) -> list[tuple[str, list[Pair]]]:
    edits = [name for name in run.records["manifest"].summary.get("edits", {}) if name in EDITS]
    found: dict[str, list[Pair]] = {name: [] for name in edits}
    for row in reader.rows(queries.edited(edits), n=_PER_EDIT) if edits else []:
        found[row["edit"]].append(pair_of(row))
    return [(name, drawn) for name, drawn in found.items() if drawn]


def _poorest(reader: TableReader) -> list[tuple[str, list[Card]]]:
    shelves = []
    for name, title in (("detail", "least detail"), ("pixels", "fewest pixels")):
        rows = reader.rows(queries.POOREST[name], n=_N_POOREST)
        notes = [f"detail {row['quality']:.1f} of 100" if name == "detail" else "" for row in rows]
        cards = [Card(row["sample_id"], "kept", note=note) for row, note in zip(rows, notes, strict=True)]
        shelves += [(title, cards)] if cards else []
    return shelves


def _details(row: Row) -> list[str]:
    sources = {"look": "found by views", "also": "found by the second source", "also_look": "found by views of the second source"}
    turned = "" if row["variant"] in (None, "none") else f"turned: {row['variant']}"
    judged = f"judged in {row['stage']}" if row.get("stage") not in (None, "confirm") else ""
    return [sources.get(row["source"], ""), turned, judged]


def _sample_below(run: Run, seed: int) -> BelowSample | None:
    rows = read_table(run.table("partitions"), ["partition", "n_samples"]).group_by("partition").aggregate([("n_samples", "sum")])
    counts = dict(zip(rows["partition"].to_pylist(), rows["n_samples_sum"].to_pylist(), strict=True))
    try:
        threshold = run.config.search.min_similarity
        return sample_below(run, counts, threshold, low=lowest_shown(threshold), n_bins=SIMILARITY_BINS, seed=seed)
    except FileNotFoundError:  # a run may be kept without its vectors
        return None


def _below(reader: TableReader, sample: BelowSample) -> list[Pair]:
    """The most similar pairs below the threshold whose ends are in no common group."""
    nearest = list(zip(sample.src.tolist(), sample.dst.tolist(), sample.similarity.tolist(), strict=True))[:_LOOKED_UP]
    wanted = {sample_id for src, dst, _ in nearest for sample_id in (src, dst)}
    component = {row["sample_id"]: row["component_id"] for row in reader.rows(queries.COMPONENTS, wanted=wanted)}
    apart = [(src, dst, similarity) for src, dst, similarity in nearest if component.get(src, src) != component.get(dst, dst)]
    return [Pair(Card(src), Card(dst), similarity) for src, dst, similarity in apart[:_N_BELOW]]
