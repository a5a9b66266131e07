"""Charts as geometry that the template draws as SVG: only numbers, and words that are not of the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 18, 16, 46
_MOST_POINTS = 1_500


@dataclass(frozen=True)
class Mark:
    """A bar, or a point where `radius` is not 0."""

    # x, y: upper left corner of a bar, middle of a point, in units of the chart
    x: float
    y: float
    width: float = 0.0
    height: float = 0.0
    radius: float = 0.0
    kind: str = ""  # its class in the style sheet
    tooltip: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart in its own units, `width` by `height`."""

    label: str  # what a screen reader reads
    x_title: str
    y_title: str
    marks: list[Mark]
    # x_ticks, y_ticks, lines: where they are, and their labels
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[tuple[float, str]] = field(default_factory=list)  # vertical
    legend: list[tuple[str, str]] = field(default_factory=list)  # (kind, name)
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT
    right: int = _WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = _HEIGHT - _BOTTOM


@dataclass(frozen=True)
class Series:
    """Counts of one kind by bin: bin k holds [k / n_bins, (k + 1) / n_bins)."""

    kind: str
    name: str
    counts: dict[int, int]


@dataclass(frozen=True)
class _Axes:
    """Places of the bins `first` to `last`, and of counts up to `most`, on a chart."""

    n_bins: int
    first: int
    last: int
    most: int
    is_log: bool

    @property
    def bin_width(self) -> float:
        """Width of a bin on the chart."""
        return (_WIDTH - _LEFT - _RIGHT) / (self.last - self.first + 1)

    def at_x(self, value: float) -> float:
        """Place of a value from 0 to 1."""
        return round(_LEFT + self.bin_width * (value * self.n_bins - self.first), 2)

    def at_y(self, n: float) -> float:
        """Place of a count."""
        return round(_HEIGHT - _BOTTOM - self.bar_height(n), 2)

    def bar_height(self, n: float) -> float:
        """Height of the bar of a count."""
        # on a logarithmic axis the bar of a single pair must be seen
        end = math.log10(self.most) * 1.06 + 0.3 if self.is_log and self.most else self.most * 1.06
        return (_HEIGHT - _TOP - _BOTTOM) * (math.log10(n) + 0.3 if self.is_log else n) / end if n and end else 0.0

    def labelled_counts(self) -> list[float]:
        """Counts that the axis names."""
        if self.is_log and self.most:
            return [10**power for power in range(math.floor(math.log10(self.most)) + 1)]
        return _steps(self.most)


def log_log(points: Sequence[tuple[int, int]], *, label: str, x_title: str, y_title: str, tooltip: str) -> Chart:
    """Points on two logarithmic axes, each with a stem.

    `points`: both numbers 1 or more.
    `tooltip`: of a point, with ``{x}`` and ``{y}``.
    """
    x_top = max((math.log10(x) for x, _ in points), default=0.0)
    y_top = max((math.log10(y) for _, y in points), default=0.0)
    x_end, y_end = max(1.0, x_top * 1.04), max(1.0, y_top * 1.06)
    wide, high = _WIDTH - _LEFT - _RIGHT - 16, _HEIGHT - _TOP - _BOTTOM - 14

    def at_x(value: float) -> float:
        return round(_LEFT + 16 + wide * math.log10(value) / x_end, 2)

    def at_y(value: float) -> float:
        return round(_HEIGHT - _BOTTOM - 14 - high * math.log10(value) / y_end, 2)

    if len(points) > _MOST_POINTS:  # leave out those that a later one covers
        points = list({(round(at_x(x)), round(at_y(y))): (x, y) for x, y in points}.values())
    marks = [Mark(at_x(x) - 0.75, at_y(y), 1.5, round(_HEIGHT - _BOTTOM - at_y(y), 2), kind="stem") for x, y in points]
    for x, y in points:
        text = tooltip.format(x=f"{x:,}", y=f"{y:,}")
        marks.append(Mark(at_x(x), at_y(y), radius=3.6, kind="unique" if x == 1 else "near", tooltip=text))
    return Chart(
        label,
        x_title,
        y_title,
        marks,
        [(at_x(10**power), short(10**power)) for power in range(math.floor(x_end) + 1)],
        [(at_y(10**power), short(10**power)) for power in range(math.floor(y_end) + 1)],
    )


def histogram(
    series: Sequence[Series],
    *,
    n_bins: int,
    low: float,
    high: float,
    lines: Sequence[tuple[float, str]],
    label: str,
    x_title: str,
    y_title: str,
    is_log: bool = False,
) -> Chart:
    """Bars by bin: stacked on a linear axis, side by side in the bin's width on a logarithmic one, where stacks mean nothing.

    `n_bins`: bins from 0 to 1; those outside `low` and `high` are left out.
    `lines`: values to mark, and their labels.
    """
    first, last = round(low * n_bins), round(high * n_bins)
    shown = [{place: n for place, n in each.counts.items() if first <= place <= last and n} for each in series]
    most = max((sum(counts.get(place, 0) for counts in shown) for place in set().union(*shown)), default=0)
    axes = _Axes(n_bins, first, last, most, is_log)
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / step <= 14)
    return Chart(
        label,
        x_title,
        y_title,
        [bar for place in sorted(set().union(*shown)) for bar in _bars(axes, place, series, shown)],
        [(axes.at_x(value), f"{value:g}") for value in _multiples(step, low, high)],
        [(axes.at_y(value), short(value)) for value in axes.labelled_counts()],
        [(axes.at_x(value), text) for value, text in lines],
        [(each.kind, each.name) for each in series],
    )


def _bars(axes: _Axes, place: int, series: Sequence[Series], shown: Sequence[dict[int, int]]) -> Iterator[Mark]:
    """The bars of one bin."""
    present = [(each, counts[place]) for each, counts in zip(series, shown, strict=True) if place in counts]
    part = axes.bin_width / len(present) if axes.is_log else axes.bin_width
    span = f"{place / axes.n_bins:.3f} to {(place + 1) / axes.n_bins:.3f}" if place < axes.n_bins else "1"
    base = 0.0
    for number, (each, n) in enumerate(present):
        height = axes.bar_height(n)
        x = axes.at_x(place / axes.n_bins) + (number * part if axes.is_log else 0.0)
        top = _HEIGHT - _BOTTOM - base - height
        tooltip = f"{span}: {n:,} {each.name}"
        yield Mark(round(x + 0.5, 2), round(top, 2), round(part - 1, 2), round(height, 2), kind=each.kind, tooltip=tooltip)
        base += 0.0 if axes.is_log else height


def _steps(most: float) -> list[float]:
    """Three to six round numbers from 0 up to the largest."""
    if not most:
        return [0]
    size = 10.0 ** math.floor(math.log10(most))
    step = next(size * part for part in (0.2, 0.5, 1.0, 2.0) if most / (size * part) <= 6)
    step = max(1.0, step)
    return [step * number for number in range(int(most / step) + 1)]


def _multiples(step: float, low: float, high: float) -> list[float]:
    start = math.ceil(low / step - 1e-6)
    return [round(number * step, 6) for number in range(start, math.floor(high / step + 1e-6) + 1)]


def short(number: float) -> str:
    """A number on an axis.

    Examples
    --------
    >>> short(1), short(2500), short(10_000), short(3e6)
    ('1', '2.5k', '10k', '3M')
    """
    size, unit = next(((size, unit) for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if number >= size), (1.0, ""))
    return f"{number / size:g}{unit}"
