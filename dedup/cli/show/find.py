"""What the commands that use a run's index print."""

from __future__ import annotations

from dedup.cli.show.terminal import console, print_lines
from dedup.find.answers import Answer
from dedup.find.flag import FlagSummary
from dedup.find.info import IndexInfo
from dedup.text import bytes_text, printable

_CHARS = 500  # of a caption or address


def print_answer(answer: Answer) -> None:
    """Print the training images that an image matches, a line each."""
    out = console()
    if answer.error is not None:
        out.print(printable(f"{answer.image}: {answer.error}"), soft_wrap=True, markup=False)
        return
    outcome = "no training image matches" if not answer.matches else "a copy" if answer.is_copy else "similar, not a copy"
    out.print(printable(f"{answer.image}: {outcome}"), soft_wrap=True, markup=False)
    for match in answer.matches:
        verdict = {True: "copy", False: "no copy", None: "unread" if match.trouble else "-"}[match.is_copy]
        view = "" if match.view == "none" else f" ({match.view})"
        what = printable(f"{match.key} in {match.shard}, {match.duplication_count:,} times in the data")
        texts = "".join(f"\n{'':<17}{printable(text, _CHARS)}" for text in (match.caption, match.url) if text)
        out.print(f"  {match.similarity:.4f} {verdict:<7} {what}{view}{texts}", soft_wrap=True, markup=False)


def print_flags(summary: FlagSummary) -> None:
    """Print how many images are copies, and the first of them."""
    out = console()
    out.print(f"images   {summary.n_images:,}", markup=False)
    out.print(f"copies   {summary.n_copies:,}", markup=False)
    for row in summary.copies:
        out.print(
            f"         {printable(row['image'])}  is  {printable(row['key'])} in {printable(row['shard'])}", soft_wrap=True, markup=False
        )
    if summary.n_unknown:
        out.print(f"unknown  {summary.n_unknown:,}: the training image that they match can't be read", markup=False)
    if summary.n_errors:
        out.print(f"unread   {summary.n_errors:,}: not images; see the column error", markup=False)
    out.print(f"flags    {summary.out}", soft_wrap=True, markup=False)


def print_index_info(info: IndexInfo) -> None:
    """Print the facts of an index."""
    lists = f"{info.nlist:,}, {info.n_empty_lists:,} of them empty, the largest of {info.largest_list:,}; a search visits {info.nprobe}"
    index, in_lists, vectors = (bytes_text(n_bytes) for n_bytes in (info.index_bytes, info.lists_bytes, info.store_bytes))
    mapped = bytes_text(info.lists_bytes + info.store_bytes)
    measured = (
        "not measured"
        if info.pair_recall is None
        else f"{info.pair_recall:.4f} of {info.n_pairs:,} neighbours of {info.n_queries:,} images"
    )
    rows = [
        ("index", f"{info.kind}, {info.codes}: {info.n_vectors:,} vectors of {info.dim} dimensions, {info.code_bytes} bytes each"),
        ("lists", lists),
        ("imbalance", f"{info.imbalance:.2f} (1 = all lists have the same size)"),
        ("files", f"{index} index, {in_lists} lists, {vectors} vectors to refine with"),
        (
            "memory",
            f"{bytes_text(info.memory_bytes)} held; {mapped} of lists and vectors are mapped: fast while memory has room to cache them",
        ),
        ("recall", measured),
    ]
    if info.recall_at_1 is not None:
        rows.append(("recall@1", f"{info.recall_at_1:.4f}"))
    print_lines([*rows, ("decoding", info.decoding)])
