"""What the commands that use a run's index print."""

from __future__ import annotations

from dedup.cli.show.terminal import print_lines, print_text
from dedup.find.answers import Answer
from dedup.find.flag import FlagSummary
from dedup.find.info import IndexInfo
from dedup.text import bytes_text, printable, times_text

_CHARS = 500  # of a caption or address


def print_answer(answer: Answer) -> None:
    """Print the training images that an image matches, a line each."""
    if answer.error is not None:
        print_text(printable(f"{answer.image}: {answer.error}"))
        return
    outcome = "no training image matches" if not answer.matches else "a copy" if answer.is_copy else "similar, not a copy"
    print_text(printable(f"{answer.image}: {outcome}"))
    for match in answer.matches:
        verdict = {True: "copy", False: "no copy", None: "unread" if match.trouble else "-"}[match.is_copy]
        view = "" if match.view == "none" else f" ({match.view})"
        place = printable(f"{match.key} in {match.shard}, {times_text(match.duplication_count)} in the data")
        texts = "".join(f"\n{'':<17}{printable(text, _CHARS)}" for text in (match.caption, match.url) if text)
        print_text(f"  {match.similarity:.4f} {verdict:<7} {place}{view}{texts}")


def print_flags(summary: FlagSummary) -> None:
    """Print how many images are copies, and the first of them."""
    print_text(f"images   {summary.n_images:,}")
    print_text(f"copies   {summary.n_copies:,}")
    for row in summary.copies:
        print_text(f"         {printable(row['image'])}  is  {printable(row['key'])} in {printable(row['shard'])}")
    if summary.n_unknown:
        print_text(f"unknown  {summary.n_unknown:,}: the training image that they match can't be read")
    if summary.n_errors:
        print_text(f"unread   {summary.n_errors:,}: not images; see the column error")
    print_text(f"flags    {summary.out}")


def print_index_info(info: IndexInfo) -> None:
    """Print the facts of an index."""
    index, in_lists, vectors = (bytes_text(n_bytes) for n_bytes in (info.index_bytes, info.lists_bytes, info.store_bytes))
    held, mapped = bytes_text(info.memory_bytes), bytes_text(info.lists_bytes + info.store_bytes)
    recall = "" if info.pair_recall is None else f"{info.pair_recall:.4f} of {info.n_pairs:,} neighbours of {info.n_queries:,} images"
    visited = f"the largest of {info.largest_list:,}; a search visits {info.nprobe}"
    rows = [
        ("index", f"{info.kind}, {info.codes}: {info.n_vectors:,} vectors of {info.dim} dimensions, {info.code_bytes} bytes each"),
        ("lists", f"{info.nlist:,}, {info.n_empty_lists:,} of them empty, {visited}"),
        ("imbalance", f"{info.imbalance:.2f} (1 = all lists have the same size)"),
        ("files", f"{index} index, {in_lists} lists, {vectors} vectors to refine with"),
        ("memory", f"{held} held; {mapped} of lists and vectors are mapped: fast while memory has room to cache them"),
        ("recall", recall or "not measured"),
    ]
    if info.recall_at_1 is not None:
        rows.append(("recall@1", f"{info.recall_at_1:.4f}"))
    print_lines([*rows, ("decoding", info.decoding)])
