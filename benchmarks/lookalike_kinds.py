"""Pictures that share a template and nothing else: every kind of `lookalikes.py`, drawn from seeds.

A kind takes two generators: of the layout, which is the same for all pictures of a set, and of the content, which differs. What a picture
says is large enough to be read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Color = tuple[int, int, int]
Kind = Callable[[Random, Random], Image.Image]
KINDS: dict[str, Kind] = {}

_SYLLABLES = [
    "ba",
    "be",
    "bi",
    "bo",
    "bu",
    "da",
    "de",
    "do",
    "du",
    "fa",
    "fi",
    "fo",
    "ga",
    "go",
    "ka",
    "ke",
    "ki",
    "ko",
    "la",
    "le",
    "li",
    "lo",
    "lu",
    "ma",
    "me",
    "mi",
    "mo",
    "na",
    "ne",
    "no",
    "pa",
    "pe",
    "po",
    "ra",
    "re",
    "ri",
    "ro",
    "sa",
    "se",
    "si",
    "so",
    "ta",
    "te",
    "ti",
    "to",
    "va",
    "ve",
]
_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralBol",
    "cmr10",
    "cmss10",
    "cmtt10",
)


def kind(draw: Kind) -> Kind:
    """Register a kind under the name of its function."""
    KINDS[draw.__name__] = draw
    return draw


@lru_cache(256)
def font(name: str, size: int) -> Any:
    """One of the fonts that come with matplotlib, else Pillow's own."""
    try:
        import matplotlib

        return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf"), size)
    except (ImportError, OSError):
        return ImageFont.load_default(size)


def word(rng: Random, least: int = 2, most: int = 4) -> str:
    """A word of a few syllables."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(least, most)))


def words(rng: Random, n: int) -> str:
    """Several words."""
    return " ".join(word(rng) for _ in range(n))


def name(rng: Random) -> str:
    """A person's or a company's name."""
    return f"{word(rng).title()} {word(rng).title()}"


def amount(rng: Random) -> str:
    """A sum of money."""
    return f"{rng.randint(1, 9_999):,}.{rng.randint(0, 99):02d}"


def date(rng: Random) -> str:
    """A day."""
    return f"{rng.randint(1, 28):02d}.{rng.randint(1, 12):02d}.{rng.randint(1990, 2029)}"


def pale(rng: Random) -> Color:
    """A light colour."""
    return rng.randint(215, 255), rng.randint(215, 255), rng.randint(215, 255)


def strong(rng: Random) -> Color:
    """A saturated colour."""
    return tuple(rng.sample([rng.randint(150, 240), rng.randint(40, 140), rng.randint(0, 60)], 3))  # type: ignore[return-value]


def dark(rng: Random) -> Color:
    """A colour to write with."""
    return rng.randint(0, 70), rng.randint(0, 70), rng.randint(0, 90)


class Page:
    """A sheet to draw on."""

    def __init__(self, width: int, height: int, ground: Color = (255, 255, 255)) -> None:
        self.picture = Image.new("RGB", (width, height), ground)
        self.draw = ImageDraw.Draw(self.picture)
        self.width, self.height = width, height

    def text(self, x: float, y: float, text: str, face: str, size: int, ink: Color = (0, 0, 0), anchor: str = "la") -> None:
        """A line of text."""
        self.draw.text((x, y), text, fill=ink, font=font(face, size), anchor=anchor)

    def lines(self, x: float, y: float, texts: Sequence[str], face: str, size: int, ink: Color = (0, 0, 0), step: float = 1.45) -> float:
        """Lines of text; returns where they end."""
        for text in texts:
            self.text(x, y, text, face, size, ink)
            y += size * step
        return y

    def box(self, x0: float, y0: float, x1: float, y1: float, fill: Color | None = None, line: Color | None = None, width: int = 1) -> None:
        """A rectangle."""
        self.draw.rectangle((x0, y0, x1, y1), fill=fill, outline=line, width=width)


def relief(rng: Random, width: int, height: int, n: int = 9) -> Image.Image:
    """A ground of smooth colours, as of a photo out of focus."""
    values = np.random.default_rng(rng.getrandbits(32)).integers(30, 226, (n, n, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)


def figure(rng: Random, page: Page, x: float, y: float, size: float, ink: Color, other: Color) -> None:
    """A sign of a few simple shapes."""
    for _ in range(rng.randint(2, 4)):
        r, cx, cy = size * rng.uniform(0.15, 0.42), x + size * rng.uniform(0.3, 0.7), y + size * rng.uniform(0.3, 0.7)
        fill, shape = rng.choice([ink, other]), rng.randrange(5)
        if shape == 0:
            page.draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=fill)
        elif shape == 1:
            page.draw.regular_polygon((cx, cy, r), rng.randint(3, 8), rotation=rng.randrange(360), fill=fill)
        elif shape == 2:
            page.draw.pieslice((cx - r, cy - r, cx + r, cy + r), rng.randrange(360), rng.randrange(360) + 400, fill=fill)
        elif shape == 3:
            page.draw.rounded_rectangle((cx - r, cy - r * rng.uniform(0.2, 1), cx + r, cy + r), r / 4, fill=fill)
        else:
            page.draw.arc(
                (cx - r, cy - r, cx + r, cy + r), rng.randrange(360), rng.randrange(360) + 250, fill=fill, width=max(2, int(size / 12))
            )


# ---- papers


@kind
def spreadsheet(layout: Random, content: Random) -> Image.Image:
    """Rows of numbers under one header."""
    columns, rows, size, face = layout.randint(4, 8), layout.randint(12, 26), layout.randint(13, 18), layout.choice(_FONTS)
    titles, head = [word(layout).title() for _ in range(columns)], pale(layout)
    page = Page(90 * columns + 60, (size + 9) * (rows + 2))
    for row in range(rows + 1):
        y = row * (size + 9)
        page.box(0, y, page.width, y + size + 9, head if row == 0 else None, (200, 200, 200))
        page.text(8, y + 4, "" if row == 0 else str(row), face, size, (120, 120, 120))
        for column in range(columns):
            text = titles[column] if row == 0 else word(content) if column == 0 else amount(content)
            page.text(56 + 90 * column, y + 4, text[:9], face, size)
            page.draw.line((50 + 90 * column, 0, 50 + 90 * column, page.height), fill=(200, 200, 200))
    return page.picture


@kind
def invoice(layout: Random, content: Random) -> Image.Image:
    """A firm's form with another customer, other goods and another sum."""
    face, bold, ink, firm = layout.choice(_FONTS), layout.choice(_FONTS), strong(layout), name(layout)
    page, left, size = Page(620, 860), layout.choice([50, 80]), layout.randint(15, 18)
    page.box(0, 0, 620, layout.randint(60, 110), ink)
    page.text(left, 25, firm, bold, 32, (255, 255, 255))
    page.text(left, 140, "INVOICE", bold, 28, ink)
    page.lines(
        left,
        190,
        [name(content), f"{word(content).title()} {content.randint(1, 99)}", f"{content.randint(10_000, 99_999)} {word(content).title()}"],
        face,
        size,
    )
    page.lines(380, 190, [f"No. {content.randint(1_000, 99_999)}", f"Date {date(content)}", f"Due {date(content)}"], face, size)
    y = 320.0
    for text, x in (("Item", left), ("Qty", 360), ("Price", 450)):
        page.text(x, y, text, bold, size, ink)
    page.draw.line((left, y + 26, 570, y + 26), fill=ink, width=2)
    for _ in range(content.randint(4, 9)):
        y += 38
        for text, x in ((words(content, 2)[:24], left), (str(content.randint(1, 20)), 360), (amount(content), 450)):
            page.text(x, y, text, face, size)
    page.text(360, 740, f"Total {amount(content)}", bold, 24)
    page.text(left, 820, f"{firm} · IBAN {layout.randint(10**15, 10**16)}", face, 13, (130, 130, 130))
    return page.picture


@kind
def certificate(layout: Random, content: Random) -> Image.Image:
    """One frame, another name."""
    page, ink, face, fine = Page(900, 640, pale(layout)), strong(layout), layout.choice(_FONTS), layout.choice(_FONTS)
    for inset, width in ((20, 8), (36, 2)):
        page.box(inset, inset, 900 - inset, 640 - inset, None, ink, width)
    page.text(450, 120, layout.choice(["Certificate of Merit", "Diploma", "Certificate of Completion"]), face, 46, ink, "mm")
    page.text(450, 220, "this is to certify that", fine, 22, (90, 90, 90), "mm")
    page.text(450, 300, name(content), face, 52, (20, 20, 20), "mm")
    page.text(450, 380, f"has completed {words(content, 3)}", fine, 24, (60, 60, 60), "mm")
    page.text(200, 520, date(content), fine, 22, (60, 60, 60), "mm")
    page.text(700, 520, name(layout), fine, 22, (60, 60, 60), "mm")
    page.draw.regular_polygon((450, 520, 46), 12, fill=ink)
    return page.picture


@kind
def receipt(layout: Random, content: Random) -> Image.Image:
    """A till's roll with other goods."""
    face, shop, size = layout.choice(["DejaVuSansMono", "cmtt10"]), name(layout).upper(), layout.randint(17, 21)
    n = content.randint(6, 12)
    page = Page(400, 250 + 30 * n, (250, 248, 243))
    page.text(200, 40, shop, face, 28, (30, 30, 30), "mm")
    page.text(200, 80, f"{date(content)}  {content.randint(8, 21):02d}:{content.randint(0, 59):02d}", face, size, (30, 30, 30), "mm")
    y = 120.0
    for _ in range(n):
        page.text(24, y, word(content)[:12], face, size, (30, 30, 30))
        page.text(376, y, amount(content)[-6:], face, size, (30, 30, 30), "ra")
        y += 30
    page.text(24, y + 15, f"TOTAL   {amount(content)}", face, size + 5, (10, 10, 10))
    page.text(200, y + 75, "THANK YOU", face, size, (30, 30, 30), "mm")
    return page.picture


@kind
def form(layout: Random, content: Random) -> Image.Image:
    """A form filled in by other hands."""
    page, face, hand, ink = Page(640, 820), layout.choice(_FONTS), layout.choice(["STIXGeneral", "cmr10", "DejaVuSerif"]), strong(layout)
    page.text(40, 40, f"Application {words(layout, 2)}".title(), face, 28)
    for row in range(layout.randint(9, 12)):
        y = 110 + row * 58
        page.text(40, y, word(layout).title(), face, 14, (90, 90, 90))
        page.box(200, y - 8, 600, y + 30, None, ink)
        page.text(212, y - 4, words(content, 2)[:26] if row % 3 else date(content), hand, 24, (20, 30, 120))
    return page.picture


@kind
def ticket(layout: Random, content: Random) -> Image.Image:
    """A ticket with another seat, name and code."""
    page, ink, face = Page(760, 300, pale(layout)), strong(layout), layout.choice(_FONTS)
    page.box(0, 0, 760, 60, ink)
    page.text(24, 16, name(layout).upper(), face, 26, (255, 255, 255))
    page.lines(24, 90, [name(content), f"Row {content.randint(1, 60)}   Seat {content.randint(1, 90)}", date(content)], face, 28)
    code, cell = np.random.default_rng(content.getrandbits(32)).integers(0, 2, (23, 23)), 9
    for y, x in zip(*np.nonzero(code), strict=True):
        page.box(530 + cell * x, 75 + cell * y, 530 + cell * x + cell - 1, 75 + cell * y + cell - 1, (0, 0, 0))
    return page.picture


@kind
def business_card(layout: Random, content: Random) -> Image.Image:
    """One firm, another person."""
    page, ink, face = Page(560, 320, layout.choice([(255, 255, 255), pale(layout)])), strong(layout), layout.choice(_FONTS)
    figure(Random(layout.random()), page, 30, 30, 110, ink, dark(layout))
    page.text(530, 60, name(layout), face, 24, ink, "ra")
    page.text(40, 170, name(content), face, 34, (20, 20, 20))
    page.lines(
        40,
        222,
        [words(content, 2), f"+{content.randint(10**9, 10**10)}", f"{word(content)}@{word(layout)}.example"],
        face,
        18,
        (80, 80, 80),
        1.4,
    )
    return page.picture


@kind
def id_card(layout: Random, content: Random) -> Image.Image:
    """A badge with another face and name."""
    page, ink, face = Page(600, 380, pale(layout)), strong(layout), layout.choice(_FONTS)
    page.box(0, 0, 600, 70, ink)
    page.text(24, 18, word(layout).upper(), face, 32, (255, 255, 255))
    page.picture.paste(portrait(content, 170, 210), (30, 100))
    labels = [word(layout).title() for _ in range(4)]
    for row, text in enumerate((name(content), date(content), str(content.randint(10**7, 10**8)), word(content).upper())):
        page.text(230, 100 + 60 * row, labels[row], face, 14, (110, 110, 110))
        page.text(230, 118 + 60 * row, text, face, 26)
    return page.picture


def portrait(rng: Random, width: int, height: int) -> Image.Image:
    """A drawn head."""
    page = Page(width, height, pale(rng))
    skin, hair = (rng.randint(120, 250), rng.randint(90, 200), rng.randint(70, 170)), dark(rng)
    cx, cy, rx, ry = width / 2, height * 0.45, width * rng.uniform(0.22, 0.32), height * rng.uniform(0.24, 0.32)
    page.draw.ellipse((cx - rx * 1.25, cy - ry * rng.uniform(1.15, 1.5), cx + rx * 1.25, cy + ry * rng.uniform(0.1, 1.2)), fill=hair)
    page.draw.ellipse((cx - rx, cy - ry, cx + rx, cy + ry), fill=skin)
    page.draw.ellipse((cx - width * 0.45, height * 0.78, cx + width * 0.45, height * 1.4), fill=strong(rng))
    for side in (-1, 1):
        page.draw.ellipse((cx + side * rx * 0.4 - 7, cy - 10, cx + side * rx * 0.4 + 7, cy), fill=(20, 20, 20))
    page.draw.arc((cx - rx * 0.5, cy, cx + rx * 0.5, cy + ry * rng.uniform(0.4, 0.9)), 20, 160, fill=(120, 30, 30), width=4)
    return page.picture


# ---- screens


@kind
def slide(layout: Random, content: Random) -> Image.Image:
    """Slides of one talk."""
    page, ink, face = Page(960, 540, layout.choice([(255, 255, 255), pale(layout), dark(layout)])), strong(layout), layout.choice(_FONTS)
    light = (245, 245, 245) if sum(page.picture.getpixel((0, 0))) < 300 else (30, 30, 30)  # type: ignore[arg-type]
    page.box(0, 0, 960, layout.choice([12, 80]), ink)
    page.text(60, 90, words(content, 3).title(), face, 40, light)
    for row in range(content.randint(3, 6)):
        page.text(80, 180 + 54 * row, f"• {words(content, content.randint(3, 6))}", face, 26, light)
    page.text(60, 505, f"{name(layout)}", face, 16, ink)
    page.text(900, 505, str(content.randint(1, 60)), face, 16, ink, "ra")
    return page.picture


@kind
def code(layout: Random, content: Random) -> Image.Image:
    """An editor with another program."""
    ground = layout.choice([(30, 30, 36), (40, 42, 54), (255, 255, 255), (0, 43, 54)])
    page, inks = Page(760, 560, ground), [strong(layout) for _ in range(4)]
    page.box(0, 0, 44, 560, tuple(min(255, part + 12) for part in ground))  # type: ignore[arg-type]
    depth = 0
    for row in range(24):
        page.text(8, 10 + 22 * row, str(row + 1), "DejaVuSansMono", 14, (120, 120, 120))
        x = 58.0 + 26 * depth
        for _ in range(content.randint(0, 5)):
            text = content.choice([word(content), word(content) + "()", "=", "if", "for", "return", str(content.randint(0, 99))])
            page.text(x, 10 + 22 * row, text, "DejaVuSansMono", 15, content.choice(inks))
            x += 9.2 * (len(text) + 1)
        depth = max(0, min(5, depth + content.randint(-1, 1)))
    return page.picture


@kind
def chat(layout: Random, content: Random) -> Image.Image:
    """A phone with another conversation."""
    page, ink, face, y = Page(420, 820, pale(layout)), strong(layout), layout.choice(_FONTS), 110.0
    page.box(0, 0, 420, 80, ink)
    page.text(70, 28, name(content), face, 24, (255, 255, 255))
    while y < 740:
        lines, is_own = [words(content, 4)[:26] for _ in range(content.randint(1, 3))], content.random() < 0.5
        x, height = (120 if is_own else 16), 26 * len(lines) + 20
        page.draw.rounded_rectangle((x, y, x + 285, y + height), 14, fill=(220, 248, 198) if is_own else (255, 255, 255))
        page.lines(x + 14, y + 8, lines, face, 17, (20, 20, 20), 1.5)
        y += height + 14
    return page.picture


@kind
def game_frame(layout: Random, content: Random) -> Image.Image:
    """One level and its display, another moment."""
    page, hud = Page(800, 450), strong(layout)
    page.picture.paste(relief(layout, 800, 450, 6))
    for _ in range(layout.randint(5, 9)):
        x, y = layout.randint(0, 700), layout.randint(150, 400)
        page.box(x, y, x + layout.randint(40, 160), y + layout.randint(20, 50), dark(layout))
    for _ in range(content.randint(4, 8)):
        figure(content, page, content.randint(0, 720), content.randint(40, 360), content.randint(50, 110), strong(content), dark(content))
    page.text(16, 12, f"SCORE {content.randint(0, 999_999):06d}", "DejaVuSansMono-Bold", 24, hud)
    page.text(784, 12, f"{content.randint(0, 9)}:{content.randint(0, 59):02d}", "DejaVuSansMono-Bold", 24, hud, "ra")
    page.box(16, 420, 16 + content.randint(20, 300), 436, hud)
    return page.picture


@kind
def scoreboard(layout: Random, content: Random) -> Image.Image:
    """A table of results with other results."""
    page, ink, face = Page(640, 640, dark(layout)), strong(layout), layout.choice(_FONTS)
    page.text(320, 50, words(layout, 2).upper(), face, 34, ink, "mm")
    for row in range(9):
        page.box(40, 100 + 56 * row, 600, 146 + 56 * row, tuple(part + 25 for part in page.picture.getpixel((0, 0))))  # type: ignore[union-attr,arg-type]
        page.text(60, 110 + 56 * row, f"{row + 1}. {name(content)}", face, 22, (240, 240, 240))
        page.text(580, 110 + 56 * row, str(content.randint(0, 99)), face, 22, ink, "ra")
    return page.picture


@kind
def calendar(layout: Random, content: Random) -> Image.Image:
    """One calendar, other entries."""
    page, ink, face = Page(840, 640), strong(layout), layout.choice(_FONTS)
    page.text(420, 40, f"{word(content).title()} {content.randint(1990, 2030)}", face, 34, ink, "mm")
    first = content.randrange(7)
    for day in range(content.randint(28, 31)):
        x, y = 20 + 115 * ((day + first) % 7), 90 + 90 * ((day + first) // 7)
        page.box(x, y, x + 112, y + 86, None, (190, 190, 190))
        page.text(x + 8, y + 6, str(day + 1), face, 18, ink)
        if content.random() < 0.5:
            page.lines(x + 8, y + 34, [word(content), word(content)], face, 15, (40, 40, 40))
    return page.picture


# ---- figures


@kind
def bar_chart(layout: Random, content: Random) -> Image.Image:
    """One chart, other numbers."""
    page, ink, face, n = Page(640, 480), strong(layout), layout.choice(_FONTS), layout.randint(5, 12)
    page.text(320, 30, words(layout, 3).title(), face, 24, (30, 30, 30), "mm")
    for k in range(6):
        page.draw.line((60, 420 - 66 * k, 610, 420 - 66 * k), fill=(220, 220, 220))
        page.text(52, 420 - 66 * k, str(20 * k), face, 14, (90, 90, 90), "rm")
    for k in range(n):
        x, width = 70 + 540 * k / n, 400 / n
        page.box(x, 420 - content.uniform(8, 330), x + width, 420, ink)
        page.text(x, 430, word(layout)[:5], face, 14)
    return page.picture


@kind
def line_chart(layout: Random, content: Random) -> Image.Image:
    """The same axes with another course."""
    page, face = Page(700, 420), layout.choice(_FONTS)
    for k in range(8):
        page.draw.line((60, 370 - 45 * k, 670, 370 - 45 * k), fill=(225, 225, 225))
        page.draw.line((60 + 87 * k, 40, 60 + 87 * k, 370), fill=(225, 225, 225))
    for _ in range(layout.randint(1, 3)):
        y, points = content.uniform(80, 330), []
        for k in range(60):
            y = min(365.0, max(45.0, y + content.gauss(0, 16)))
            points.append((60 + 610 * k / 59, y))
        page.draw.line(points, fill=strong(layout), width=3)
    page.text(350, 20, words(layout, 3).title(), face, 20, (30, 30, 30), "mm")
    return page.picture


@kind
def street_map(layout: Random, content: Random) -> Image.Image:
    """Maps in one style of other places."""
    ground, road = pale(layout), (255, 255, 255)
    page, face = Page(640, 640, ground), layout.choice(_FONTS)
    for _ in range(content.randint(2, 5)):
        x, y, r = content.randint(0, 640), content.randint(0, 640), content.randint(50, 140)
        page.draw.regular_polygon(
            (x, y, r), content.randint(4, 8), rotation=content.randrange(90), fill=content.choice([(190, 225, 180), (170, 205, 235)])
        )
    for _ in range(content.randint(10, 18)):
        x, y, turn = content.randint(0, 640), content.randint(0, 640), content.choice([0, 90, content.randrange(180)])
        dx, dy, width = 900 * math.cos(math.radians(turn)), 900 * math.sin(math.radians(turn)), content.choice([6, 10, 18])
        page.draw.line((x - dx, y - dy, x + dx, y + dy), fill=(200, 195, 185), width=width + 3)
        page.draw.line((x - dx, y - dy, x + dx, y + dy), fill=road, width=width)
    for _ in range(8):
        page.text(content.randint(20, 520), content.randint(20, 610), word(content).title(), face, 17, (90, 80, 70))
    return page.picture


@kind
def floor_plan(layout: Random, content: Random) -> Image.Image:
    """Plans of other flats."""
    page, face = Page(640, 520), layout.choice(_FONTS)

    def split(x0: float, y0: float, x1: float, y1: float, depth: int) -> None:
        if depth == 0 or min(x1 - x0, y1 - y0) < 130:
            page.text((x0 + x1) / 2, (y0 + y1) / 2, f"{content.randint(5, 40)} m²", face, 18, (70, 70, 70), "mm")
            return
        share = content.uniform(0.3, 0.7)
        if x1 - x0 > y1 - y0:
            middle = x0 + share * (x1 - x0)
            page.draw.line((middle, y0, middle, y1 - 50), fill=(0, 0, 0), width=6)
            split(x0, y0, middle, y1, depth - 1)
            split(middle, y0, x1, y1, depth - 1)
        else:
            middle = y0 + share * (y1 - y0)
            page.draw.line((x0, middle, x1 - 50, middle), fill=(0, 0, 0), width=6)
            split(x0, y0, x1, middle, depth - 1)
            split(x0, middle, x1, y1, depth - 1)

    page.box(40, 40, 600, 480, None, (0, 0, 0), 8)
    split(40, 40, 600, 480, 3)
    return page.picture


@kind
def chess(layout: Random, content: Random) -> Image.Image:
    """Another position on one board."""
    light, deep = pale(layout), strong(layout)
    page, white, black = Page(560, 560), (255, 255, 255), (20, 20, 20)
    for square in range(64):
        x, y = 70 * (square % 8), 70 * (square // 8)
        page.box(x, y, x + 69, y + 69, deep if (square % 8 + square // 8) % 2 else light)
    for square in content.sample(range(64), content.randint(8, 26)):
        x, y, ink, line = 70 * (square % 8), 70 * (square // 8), *content.choice([(white, black), (black, white)])
        piece = content.randrange(5)
        if piece == 0:
            page.draw.ellipse((x + 25, y + 18, x + 45, y + 38), fill=ink, outline=line, width=2)
        elif piece == 1:
            page.box(x + 20, y + 14, x + 50, y + 30, ink, line, 2)
        elif piece == 2:
            page.draw.polygon((x + 35, y + 8, x + 52, y + 38, x + 18, y + 38), fill=ink, outline=line)
        elif piece == 3:
            page.draw.regular_polygon((x + 35, y + 24, 18), 5, fill=ink, outline=line)
        else:
            page.box(x + 31, y + 6, x + 39, y + 40, ink, line, 2)
        page.draw.polygon((x + 26, y + 36, x + 44, y + 36, x + 54, y + 60, x + 16, y + 60), fill=ink, outline=line)
    return page.picture


@kind
def sudoku(layout: Random, content: Random) -> Image.Image:
    """Another puzzle in one grid."""
    page, face, cell = Page(500, 500), layout.choice(_FONTS), 52
    for k in range(10):
        width = 4 if k % 3 == 0 else 1
        page.draw.line((16 + cell * k, 16, 16 + cell * k, 16 + 9 * cell), fill=(0, 0, 0), width=width)
        page.draw.line((16, 16 + cell * k, 16 + 9 * cell, 16 + cell * k), fill=(0, 0, 0), width=width)
    for square in content.sample(range(81), 30):
        page.text(42 + cell * (square % 9), 42 + cell * (square // 9), str(content.randint(1, 9)), face, 32, dark(layout), "mm")
    return page.picture


@kind
def sheet_music(layout: Random, content: Random) -> Image.Image:
    """Other notes on the same staves."""
    page, gap = Page(720, 900, (253, 252, 248)), layout.randint(9, 12)
    page.text(360, 60, words(content, 2).title(), "STIXGeneralBol", 32, (0, 0, 0), "mm")
    for stave in range(layout.randint(6, 8)):
        top = 130 + stave * 10 * gap
        for line in range(5):
            page.draw.line((40, top + line * gap, 680, top + line * gap), fill=(0, 0, 0), width=2)
        x = 90.0
        while x < 660:
            y, up = top + content.randint(-1, 9) * gap / 2, content.random() < 0.5
            page.draw.ellipse(
                (x, y - gap / 2, x + gap * 1.3, y + gap / 2), fill=(0, 0, 0) if content.random() < 0.8 else None, outline=(0, 0, 0), width=2
            )
            stem = x + (gap * 1.3 if up else 0)
            page.draw.line((stem, y, stem, y - 3.2 * gap if up else y + 3.2 * gap), fill=(0, 0, 0), width=2)
            x += gap * content.choice([2.2, 3.2, 4.5])
    return page.picture


# ---- signs


@kind
def logo(layout: Random, content: Random) -> Image.Image:
    """Signs of other firms on one ground, with a name under each."""
    page, face = Page(400, 400, layout.choice([(255, 255, 255), pale(layout)])), layout.choice(_FONTS)
    figure(content, page, 90, 50, 220, strong(content), dark(content))
    page.text(200, 330, word(content).upper(), face, 44, dark(content), "mm")
    return page.picture


@kind
def icon(layout: Random, content: Random) -> Image.Image:
    """Icons of one set."""
    page, ink = Page(256, 256), strong(layout)
    page.draw.ellipse((12, 12, 244, 244), fill=ink)
    figure(content, page, 40, 40, 176, (255, 255, 255), dark(layout))
    return page.picture


@kind
def face_icon(layout: Random, content: Random) -> Image.Image:
    """Faces that are told apart by eyes and mouth."""
    page, skin = Page(240, 240), (255, layout.randint(190, 225), layout.randint(40, 110))
    page.draw.ellipse((10, 10, 230, 230), fill=skin, outline=(180, 130, 20), width=4)
    eye, size, tilt = content.randrange(4), content.randint(10, 22), content.randint(-12, 12)
    for side in (-1, 1):
        x, y = 120 + side * content.randint(40, 52), 92 + side * tilt
        if eye == 0:
            page.draw.ellipse((x - size, y - size, x + size, y + size), fill=(60, 40, 10))
        elif eye == 1:
            page.draw.arc((x - size, y - size, x + size, y + size), 200, 340, fill=(60, 40, 10), width=7)
        elif eye == 2:
            page.draw.line((x - size, y - size, x + size, y + size), fill=(60, 40, 10), width=7)
            page.draw.line((x - size, y + size, x + size, y - size), fill=(60, 40, 10), width=7)
        else:
            page.draw.regular_polygon((x, y, size + 8), content.randint(3, 6), rotation=content.randrange(90), fill=(190, 30, 40))
    mouth, width, height = content.randrange(4), content.randint(30, 62), content.randint(12, 46)
    box = (120 - width, 150 - height / 2, 120 + width, 160 + height)
    if mouth == 0:
        page.draw.arc(box, 10, 170, fill=(90, 40, 10), width=8)
    elif mouth == 1:
        page.draw.arc(box, 190, 350, fill=(90, 40, 10), width=8)
    elif mouth == 2:
        page.draw.ellipse(box, fill=(110, 40, 20))
    else:
        page.draw.chord(box, 0, 180, fill=(255, 255, 255), outline=(90, 40, 10), width=5)
    return page.picture


@kind
def flag(layout: Random, content: Random) -> Image.Image:
    """Flags: the same stripes in other colours, or a sign on them."""
    page = Page(600, 400)
    bands, is_upright = layout.choice([2, 3, 3, 4]), layout.random() < 0.5
    for band in range(bands):
        ends = (
            (600 * band / bands, 0, 600 * (band + 1) / bands, 400) if is_upright else (0, 400 * band / bands, 600, 400 * (band + 1) / bands)
        )
        page.box(
            *ends,
            content.choice(
                [(200, 20, 40), (0, 80, 160), (250, 210, 0), (255, 255, 255), (0, 130, 70), (20, 20, 20), (240, 130, 30), (110, 30, 60)]
            ),
        )
    if content.random() < 0.4:
        page.draw.regular_polygon(
            (300, 200, content.randint(40, 90)), content.randint(3, 9), rotation=content.randrange(90), fill=strong(content)
        )
    return page.picture


@kind
def playing_card(layout: Random, content: Random) -> Image.Image:
    """Cards of one deck."""
    page, face = Page(360, 500, (255, 255, 255)), layout.choice(_FONTS)
    suit, value = content.randrange(4), content.randint(1, 13)
    ink, sides = ((200, 20, 30), (20, 20, 20))[suit % 2], (4, 3, 5, 6)[suit]
    page.draw.rounded_rectangle((6, 6, 354, 494), 24, outline=(90, 90, 90), width=3)
    page.text(30, 22, str(value), face, 46, ink)
    page.text(330, 478, str(value), face, 46, ink, "rs")
    places = content.sample([(90 + 90 * x, 110 + 70 * y) for x in range(3) for y in range(5)], min(15, value))
    for x, y in places:
        page.draw.regular_polygon((x, y, 26), sides, rotation=45 * (suit % 2), fill=ink)
    return page.picture


@kind
def licence_plate(layout: Random, content: Random) -> Image.Image:
    """Other numbers on one plate."""
    page, ink = Page(620, 170, layout.choice([(255, 255, 255), (250, 210, 60)])), layout.choice([(0, 0, 0), (10, 30, 110)])
    page.draw.rounded_rectangle((6, 6, 614, 164), 14, outline=ink, width=6)
    page.box(6, 6, 70, 164, strong(layout))
    text = f"{''.join(content.choice('ABCDEFGHJKLMNPRSTUVWXYZ') for _ in range(3))} {content.randint(100, 9_999)}"
    page.text(340, 86, text, layout.choice(["DejaVuSans-Bold", "DejaVuSansMono-Bold"]), 92, ink, "mm")
    return page.picture


# ---- grounds


@kind
def book_cover(layout: Random, content: Random) -> Image.Image:
    """Covers of one series."""
    page, ink, face = Page(420, 620, pale(layout)), strong(layout), layout.choice(_FONTS)
    page.box(0, 0, 420, 110, ink)
    page.text(210, 55, word(layout).upper(), face, 34, (255, 255, 255), "mm")
    figure(content, page, 80, 150, 260, strong(content), dark(content))
    page.text(210, 470, words(content, 2).title(), face, 30, (20, 20, 20), "mm")
    page.text(210, 520, name(content), face, 22, (70, 70, 70), "mm")
    page.text(380, 590, str(content.randint(1, 99)), face, 26, ink, "rs")
    return page.picture


@kind
def quote(layout: Random, content: Random) -> Image.Image:
    """Other words on one ground."""
    page, face = Page(640, 640), layout.choice(_FONTS)
    page.picture.paste(relief(layout, 640, 640).filter(ImageFilter.GaussianBlur(12)))
    for row in range(content.randint(4, 6)):
        page.text(320, 180 + 58 * row, words(content, 3), face, 36, (255, 255, 255), "mm")
    page.text(320, 560, f"— {name(content)}", face, 26, (255, 255, 255), "mm")
    return page.picture


@kind
def meme(layout: Random, content: Random) -> Image.Image:
    """Other jokes under one picture."""
    page = Page(560, 560)
    page.picture.paste(relief(layout, 560, 560, 7))
    for _ in range(5):
        figure(layout, page, layout.randint(40, 380), layout.randint(90, 300), layout.randint(80, 180), strong(layout), dark(layout))
    for y, n in ((16, 3), (490, 3)):
        page.draw.text(
            (280, y),
            words(content, n).upper(),
            fill=(255, 255, 255),
            font=font("DejaVuSans-Bold", 38),
            anchor="ma",
            stroke_width=3,
            stroke_fill=(0, 0, 0),
        )
    return page.picture


@kind
def garment(layout: Random, content: Random) -> Image.Image:
    """A shop's photo of one shirt, in another colour or with another print."""
    page, cut = Page(480, 560, (246, 246, 246)), layout.randint(0, 30)
    cloth = (content.randint(10, 245), content.randint(10, 245), content.randint(10, 245))
    outline = [
        (150, 80),
        (200, 60),
        (280, 60),
        (330, 80),
        (440, 170 + cut),
        (390, 220 + cut),
        (340, 180),
        (340, 500),
        (140, 500),
        (140, 180),
        (90, 220 + cut),
        (40, 170 + cut),
    ]
    page.draw.polygon(outline, fill=cloth, outline=(90, 90, 90))
    page.draw.chord((200, 40, 280, 100), 0, 180, fill=(246, 246, 246))
    for x in (150, 330):
        page.draw.line((x, 190, x, 480), fill=tuple(max(0, part - 18) for part in cloth), width=3)
    figure(content, page, 180, 200, 120, strong(content), dark(content))
    return page.picture
