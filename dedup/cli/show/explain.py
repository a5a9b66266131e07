"""What a person sees of an explanation."""

from __future__ import annotations

from dedup.cli.show.terminal import console
from dedup.explanation.explanation import Explanation, Refusal, Sample, Step
from dedup.text import printable

_CHARS = 100  # of a caption or address
_STEPS = 12  # of a path that are printed
_WIDTH = 12


def explanation_lines(found: Explanation) -> list[tuple[str, str]]:
    """An explanation as (name, text) rows; texts from the data can do nothing to a terminal."""
    lines = [("sample", _where(found.sample)), ("", found.reason)]
    lines += _details(found.sample)
    if found.keeper is not None:
        distance = "" if found.distance_to_keeper is None else f", distance of the pixels {found.distance_to_keeper:.3f}"
        lines += [("keeper", f"{_where(found.keeper)}: similarity {found.similarity_to_keeper:.4f}{distance}"), *_details(found.keeper)]
    if found.n_copies:
        lines.append(("copies", f"{found.n_copies:,} dropped for it"))
    if found.rule is not None:
        rule = found.rule
        values = f"{_value(rule.value)} of {rule.preferred.key} against {_value(rule.other_value)} of {rule.other.key}"
        by = rule.term if rule.term.startswith("keep.") else f"keep.order_by, {rule.term}"
        lines.append(("rule", f"{by}: {values}"))
    for other in found.other_keepers:
        similarity = "" if other.similarity is None else f": similarity {other.similarity:.4f}"
        asked = "" if other.min_similarity is None or other.similarity is None else f", a copy needs {other.min_similarity:.4g}"
        lines.append(("kept before", f"{other.sample.name}{similarity}{asked}{f'; refused: {other.refused}' if other.refused else ''}"))
    lines += _component_lines(found)
    if found.path:
        weakest = min(step.similarity for step in found.path)
        lines.append(("path", f"{_count(len(found.path), 'edge')} to the keeper, the weakest {weakest:.4f}"))
        lines += _path_lines(found)
    elif found.edges:
        lines.append(("edges", f"{found.n_edges:,}, the most similar:"))
        lines += [("", f"to {other.name}: {_step(step)}") for other, step in zip(found.edge_samples, found.edges, strict=True)]
    if found.n_refused:
        few = "" if len(found.refused) == found.n_refused else f", the {len(found.refused)} most similar"
        lines.append(("refused", f"{_count(found.n_refused, 'image')} with similar vectors{few}:"))
        lines += [("", _refusal(pair)) for pair in found.refused]
    lines += [("rejected", f"{row.reason}: {row.detail}") for row in found.rejections if found.outcome != "rejected"]
    return [(name, printable(text)) for name, text in lines]


def print_explanation(found: Explanation, *, picture: str = "") -> None:
    """Print why a sample was kept or dropped, and where the picture of it lies."""
    out = console()
    for name, text in [*explanation_lines(found), *([("picture", picture)] if picture else [])]:
        out.print(f"{name:<{_WIDTH}} {text}".rstrip(), soft_wrap=True, markup=False)


def _component_lines(found: Explanation) -> list[tuple[str, str]]:
    component = found.component
    if component is None:
        return []
    parts = [(component.n_kept, "kept"), (component.n_dropped, "dropped"), (component.n_excluded, "excluded")]
    counts = ", ".join(f"{n:,} {word}" for n, word in parts if n)
    size = "alone" if component.duplication_count == 1 else f"{component.duplication_count:,} samples: {counts}"
    lines = [("group", f"{component.component_id}, {size}")]
    if component.n_raw_members > 1:
        if component.n_raw_groups > 1:
            cut = f"cut into {component.n_raw_groups:,} groups: a chain whose ends are not copies of each other"
        else:
            cut = "one group"
        lines.append(("component", f"{component.raw_component_id}, {component.n_raw_members:,} samples, {cut}"))
    if component.anchor is not None and component.anchor.sample_id != found.sample.sample_id:
        distance = "" if component.distance_to_anchor is None else f", distance of the pixels {component.distance_to_anchor:.3f}"
        lines.append(("anchor", f"{_where(component.anchor)}: similarity {component.similarity_to_anchor:.4f}{distance}"))
    lines.append(("neighbors", f"{_count(found.n_neighbors, 'other sample')} at similarity {found.min_similarity:.4g} or above"))
    return lines


def _path_lines(found: Explanation) -> list[tuple[str, str]]:
    lines = []
    for k in range(len(found.path)):
        if len(found.path) > _STEPS and _STEPS // 2 <= k < len(found.path) - _STEPS // 2:
            if k == _STEPS // 2:
                lines.append(("", f"… {len(found.path) - _STEPS:,} more …"))
            continue
        lines.append(("", f"{found.path_samples[k].name} to {found.path_samples[k + 1].name}: {_step(found.path[k])}"))
    return lines


def _step(step: Step) -> str:
    if step.kind == "exact":
        return "byte-identical" if step.source != "embedding" else "equal embeddings"
    parts = [f"{step.similarity:.4f}", _found(step.source, step.found_by, step.variant)]
    parts.append({True: "confirmed", False: "refused", None: "not judged"}[step.confirmed])
    if step.distance is not None:
        parts.append(f"distance {step.distance:.3f}")
    return ", ".join(parts)


def _refusal(pair: Refusal) -> str:
    distance = "" if pair.distance is None else f", distance {pair.distance:.3f}"
    fate = "kept" if pair.is_kept else "not kept"
    group = ", in the same group by others" if pair.is_same_group else ""
    found = _found(pair.source, pair.found_by, pair.variant)
    return f"{pair.other.name}: {pair.similarity:.4f}, {found}, {pair.reason}{distance} (by {pair.stage}); {fate}{group}"


def _found(source: str, found_by: str | None, variant: str) -> str:
    turned = "" if variant == "none" else f", {variant}"
    return f"{source}{f' by {found_by}' if found_by else ''}{turned}"


def _details(sample: Sample) -> list[tuple[str, str]]:
    size = f"{sample.width:,} x {sample.height:,} pixels, " if sample.width and sample.height else ""
    n_bytes = f"{sample.n_bytes:,} bytes" if sample.n_bytes else ""
    texts = [f"{size}{n_bytes}".rstrip(", "), printable(sample.caption or "", _CHARS), printable(sample.url or "", _CHARS)]
    return [("", text) for text in texts if text]


def _where(sample: Sample) -> str:
    return f"{sample.key} in {sample.shard}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _value(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "nothing" if value is None else f"{value}"
