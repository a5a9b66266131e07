"""Draw the rooms of `dedup/` from its imports: `docs/assets/architecture.svg`, by `make docs`.

Rooms are the folders and single modules of the package, floors the layers of the contract in `pyproject.toml`, arrows the imports between
rooms. An arrow that follows from others is left out; a room's tooltip lists all its imports. Only what a room is for is written by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import Any

import grimp
import networkx as nx
from importlinter import api

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "dedup"

PURPOSE = {
    "cli": "commands, and what they print",
    "calibration": "which threshold suits a run's own images",
    "duplicates": "find_duplicates: groups as Python objects",
    "attack": "the extraction attack: generate, score, curves, outliers",
    "explanation": "why a sample was kept or dropped",
    "pipeline": "the list of stages; which of them run again",
    "release": "cleaned shards, lists of keys, filters",
    "demo": "demo shards with planted copies",
    "stages": "what a run does, one after the other; each ends with its STAGE",
    "find": "looking images up in a finished run",
    "judge": "Judge: is this pair a copy?",
    "report": "a run as one HTML file",
    "runs": "Run: a run directory, opened once",
    "encoders": "Encoder: images to vectors",
    "engines": "Engine: one machine, or Spark",
    "storage": "files: tars, pictures, tables; knows no run",
    "arrays": "near_duplicates(): arrays in, pairs out",
    "numerics": "arrays in, arrays out: every algorithm",
    "config": "keys with default, meaning, range and stage",
    "schemas": "the columns of every table",
    "contracts": "Engine, and what passes through it",
    "machine": "memory, cores and GPUs at hand",
    "text": "numbers and bytes as text",
    "errors": "every exception",
}

WIDTH, MARGIN, AISLE = 1120, 30, 44  # of the drawing, its border, and between two rooms
LINE, LETTER, PAD, FLOOR_GAP = 15, 6.9, 11, 36  # height and width of text, around it, and between two floors
INK, FAINT, PAPER, ROOM, EDGE, ARROW, CHIP = "#1f2a2e", "#5d6b70", "#ffffff", "#f0f7f6", "#9dbdb8", "#00796b", "#fff1d6"


@dataclass
class Room:
    """A folder or module of the package, and where its box stands."""

    name: str
    modules: list[str]
    libraries: list[str]
    floor: int = 0
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0
    purpose: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@dataclass
class House:
    """What is drawn: rooms floor by floor, and the imports between them."""

    floors: list[list[Room]]
    imports: nx.DiGraph


def read_house() -> House:
    """The rooms of the package and their imports, as the source and the contracts of import-linter have them."""
    options = api.read_configuration(str(ROOT / "pyproject.toml"))["contracts_options"]
    contracts = {tuple(option.get("containers", ())): option for option in options if option["type"] == "layers"}
    forbidden = [option for option in options if option["type"] == "forbidden" and option.get("ignore_imports")]
    guarded = {name for option in forbidden for name in option["forbidden_modules"]}
    graph = grimp.build_graph(PACKAGE, include_external_packages=True, cache_dir=None)
    exceptions = set(contracts[(PACKAGE,)].get("ignore_imports", ()))
    imports, libraries = nx.DiGraph(), defaultdict(set)
    for module in sorted(name for name in graph.modules if name.startswith(f"{PACKAGE}.") and not name.endswith("__main__")):
        for target in sorted(graph.find_modules_directly_imported_by(module)):
            room = module.split(".")[1]
            if target in guarded:
                libraries[room].add(target)
            elif target.startswith(f"{PACKAGE}.") and target.split(".")[1] != room and f"{module} -> {target}" not in exceptions:
                imports.add_edge(room, target.split(".")[1])
    floors = []
    for number, layer in enumerate(_layers(contracts[(PACKAGE,)])):
        names = [name for name in layer if not name.startswith("(")]
        floors.append([Room(name, _inside(name, graph, contracts), sorted(libraries[name]), number) for name in names])
    return House([floor for floor in floors if floor], imports)


def _layers(contract: dict[str, Any]) -> list[list[str]]:
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def _inside(room: str, graph: grimp.ImportGraph, contracts: dict[tuple[str, ...], dict[str, Any]]) -> list[str]:
    """Folders and modules of a room: in the order of its own contract, lowest first, where it covers them; else by name."""
    children = {name.rpartition(".")[2] for name in graph.find_children(f"{PACKAGE}.{room}")}
    contract = contracts.get((f"{PACKAGE}.{room}",))
    order = [name for layer in reversed(_layers(contract)) for name in layer] if contract and contract.get("exhaustive") else []
    return sorted(children, key=lambda name: (order.index(name) if name in order else -1, name))


def place(house: House) -> float:
    """Give each room its box; returns the height of the drawing."""
    y = float(MARGIN)
    for floor in house.floors:
        width = min(520.0, (WIDTH - 2 * MARGIN - AISLE * (len(floor) - 1)) / len(floor))
        x = (WIDTH - width * len(floor) - AISLE * (len(floor) - 1)) / 2
        for room in floor:
            letters = int((width - 2 * PAD) / LETTER)
            room.purpose = wrap(PURPOSE[room.name], letters)
            room.files = wrap("\u00a0· ".join(room.modules), letters)
            room.x, room.y, room.width = x, y, width
            x += width + AISLE
        height = max(2 * PAD + 17 + LINE * (len(room.purpose) + len(room.files)) for room in floor)
        for room in floor:
            room.height = height
        y += height + FLOOR_GAP
    return y - FLOOR_GAP + MARGIN


def draw(house: House) -> str:
    """The drawing as SVG."""
    height = place(house)
    body = [_arrow(points) for points in _routes(house)]
    body += [line for floor in house.floors for room in floor for line in _box(room, sorted(house.imports.successors(room.name)))]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" height="{height:.0f}" '
            'font-family="Inter, Segoe UI, Helvetica, Arial, sans-serif" role="img">',
            f"<title>The rooms of {PACKAGE}/ and the imports between them</title>",
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            f'<path d="M0 0.8 7.5 4 0 7.2Z" fill="{ARROW}"/></marker></defs>',
            f'<rect width="{WIDTH}" height="{height:.0f}" fill="{PAPER}"/>',
            *body,
            "</svg>\n",
        ]
    )


def _box(room: Room, imported: Sequence[str]) -> list[str]:
    """A room: its name, what it is for, what is in it, and at the right the guarded libraries that it may import."""
    x, y = room.x + PAD, room.y + PAD + 13
    frame = f'x="{room.x:.1f}" y="{room.y:.1f}" width="{room.width:.1f}" height="{room.height:.1f}"'
    lines = [
        f"<g><title>{room.name} imports {', '.join(imported) or 'no other room'}</title>",
        f'<rect {frame} rx="7" fill="{ROOM}" stroke="{EDGE}"/>',
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="15" font-weight="600" fill="{INK}">{room.name}</text>',
    ]
    right = room.x + room.width - PAD
    for library in reversed(room.libraries):
        width = 6.2 * len(library) + 12
        right -= width
        lines += [
            f'<rect x="{right:.1f}" y="{y - 12:.1f}" width="{width:.1f}" height="16" rx="8" fill="{CHIP}" stroke="#e3b75c"/>',
            f'<text x="{right + width / 2:.1f}" y="{y:.1f}" font-size="11" text-anchor="middle" fill="#7a5200">{library}</text>',
        ]
        right -= 5
    for number, text in enumerate([*room.purpose, *room.files]):
        style = f'font-size="12" fill="{INK}"' if number < len(room.purpose) else f'font-size="11.5" fill="{FAINT}"'
        lines.append(f'<text x="{x:.1f}" y="{y + 3 + LINE * (number + 1):.1f}" {style}>{escape(text)}</text>')
    return [*lines, "</g>"]


def _routes(house: House) -> list[list[tuple[float, float]]]:
    """The points of each arrow, from the foot of one room to the head of another; between them it keeps to the aisles."""
    rooms = {room.name: room for floor in house.floors for room in floor}
    rows = {room.name: row for row, floor in enumerate(house.floors) for room in floor}
    pairs = sorted(nx.transitive_reduction(house.imports).edges, key=lambda pair: (rows[pair[0]], rows[pair[1]], pair))
    feet, heads = defaultdict(list), defaultdict(list)
    for src, dst in pairs:
        feet[src].append(dst)
        heads[dst].append(src)
    taken: dict[tuple[int, float], int] = defaultdict(int)
    routes = []
    for src, dst in pairs:
        start, end = _port(rooms[src], feet[src], dst, rooms), _port(rooms[dst], heads[dst], src, rooms)
        points = [(start, rooms[src].y + rooms[src].height)]
        for row in range(rows[src] + 1, rows[dst]):
            floor = house.floors[row]
            before = points[-1][0]
            aisle = min(_aisles(floor), key=lambda x: (abs(x - before) + abs(x - end), x))
            number = taken[row, aisle]
            taken[row, aisle] += 1
            x = aisle + 6 * ((number + 1) // 2) * (-1) ** number
            points += [(x, floor[0].y), (x, floor[0].y + floor[0].height)]
        routes.append([*points, (end, rooms[dst].y)])
    return routes


def _port(room: Room, others: Sequence[str], other: str, rooms: dict[str, Room]) -> float:
    """Where along a room's edge the arrow from or to another room stands: in the order of those rooms."""
    order = sorted(others, key=lambda name: (rooms[name].x + rooms[name].width / 2, rooms[name].floor))
    return room.x + room.width * (order.index(other) + 1) / (len(order) + 1)


def _aisles(floor: Sequence[Room]) -> list[float]:
    return [floor[0].x - AISLE / 2, *(room.x + room.width + AISLE / 2 for room in floor)]


def _arrow(points: Sequence[tuple[float, float]]) -> str:
    path = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for number, ((x0, y0), (x1, y1)) in enumerate(zip(points, points[1:], strict=False)):
        bend = (y1 - y0) * 0.6
        path.append(f"L{x1:.1f} {y1:.1f}" if number % 2 else f"C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}")
    return f'<path d="{" ".join(path)}" fill="none" stroke="{ARROW}" stroke-width="1.3" opacity="0.75" marker-end="url(#tip)"/>'


def architecture_svg() -> str:
    """The drawing, for `docs/generate.py`."""
    return draw(read_house())


if __name__ == "__main__":
    (ROOT / "docs" / "assets" / "architecture.svg").write_text(architecture_svg(), encoding="utf-8")
