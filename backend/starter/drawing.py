"""Scenes as pictures."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from backend.starter.scenes import CELLS, Scene, Sign, Thing

SIDE = 160
"""Pixels of a picture's side."""
FONT_FILES = {
    "sans": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif-Bold.ttf",
    "mono": "DejaVuSansMono-Bold.ttf",
}
_SCALE = 2  # drawn larger and reduced, for smooth edges
_INK = (30, 30, 34)
_PAINT = {
    "red": (214, 39, 40),
    "green": (34, 139, 60),
    "blue": (40, 80, 200),
    "yellow": (250, 215, 50),
    "purple": (140, 60, 170),
    "orange": (245, 135, 25),
    "white": (250, 250, 250),
    "black": (40, 40, 44),
}
_GROUND = {
    "sand": (226, 205, 160),
    "snow": (232, 238, 244),
    "grass": (160, 200, 130),
    "water": (140, 190, 220),
    "stone": (165, 162, 158),
}
_RADIUS = {"small": 14.0, "large": 24.0}
_DARK_BOARDS = ("red", "green", "blue", "purple", "black")
_MARGIN = 4.0

Point = tuple[float, float]


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB picture of `SIDE` pixels each way."""
    side = SIDE * _SCALE
    image = Image.new("RGB", (side, side), _GROUND[scene.ground])
    canvas = ImageDraw.Draw(image)
    _texture(canvas, scene, side)
    for thing in scene.things:
        _thing(image, canvas, thing)
    for sign in scene.signs:
        _sign(canvas, sign)
    return image.reduce(_SCALE)


def blurred(image: Image.Image) -> Image.Image:
    """A picture out of focus, past reading."""
    return image.filter(ImageFilter.GaussianBlur(5))


def _texture(canvas: ImageDraw.ImageDraw, scene: Scene, side: int) -> None:
    """Strokes that differ by ground, so that its color is not the only sign of it."""
    random = Random(scene.grain)
    base = _GROUND[scene.ground]
    for _ in range(70):
        x, y = random.uniform(0, side), random.uniform(0, side)
        shade = random.choice((-16, 14))
        red, green, blue = (max(0, min(255, value + shade)) for value in base)
        color = (red, green, blue)
        if scene.ground == "grass":
            canvas.line((x, y, x + random.uniform(-3, 3), y - 12), color, 2)
        elif scene.ground == "water":
            canvas.arc((x, y, x + 26, y + 10), 180, 360, color, 2)
        elif scene.ground == "stone":
            canvas.rectangle((x, y, x + 18, y + 10), None, color, 2)
        else:
            radius = 1.5 if scene.ground == "sand" else 3.5
            canvas.ellipse((x - radius, y - radius, x + radius, y + radius), color)


def _middle(cell: str, shift: Point, half: Point) -> Point:
    """The middle of an item of half width and height `half` in its place, in drawn pixels."""
    place = SIDE / 2
    index = CELLS.index(cell)
    room = (place / 2 - half[0] - _MARGIN, place / 2 - half[1] - _MARGIN)
    x = (index % 2 + 0.5) * place + shift[0] * max(0.0, room[0])
    y = (index // 2 + 0.5) * place + shift[1] * max(0.0, room[1])
    return x * _SCALE, y * _SCALE


def _thing(image: Image.Image, canvas: ImageDraw.ImageDraw, thing: Thing) -> None:
    radius = _RADIUS[thing.size]
    x, y = _middle(thing.cell, thing.shift, (radius, radius))
    r, paint, width = radius * _SCALE, _PAINT[thing.color], 2 * _SCALE
    box = (x - r, y - r, x + r, y + r)
    if thing.shape == "circle":
        canvas.ellipse(box, paint, _INK, width)
    elif thing.shape == "ring":
        canvas.ellipse(box, None, _INK, round(0.52 * r))
        inner = (x - r + width, y - r + width, x + r - width, y + r - width)
        canvas.ellipse(inner, None, paint, round(0.52 * r) - 2 * width)
    elif thing.shape == "moon":
        _moon(image, (x, y), r, thing)
    else:
        points = _turned(_OUTLINES[thing.shape], (x, y), r, thing.angle)
        canvas.polygon(points, paint, _INK, width)


def _moon(image: Image.Image, middle: Point, r: float, thing: Thing) -> None:
    """A crescent: a disc without a second disc."""
    x, y = middle
    for inset, color in ((0.0, _INK), (2.0 * _SCALE, _PAINT[thing.color])):
        mask = Image.new("L", image.size)
        pen = ImageDraw.Draw(mask)
        d = r - inset
        pen.ellipse((x - d, y - d, x + d, y + d), 255)
        cut, hole = 0.55 * r, 0.85 * r + inset
        pen.ellipse((x + cut - hole, y - hole, x + cut + hole, y + hole), 0)
        image.paste(color, mask=mask)


def _star() -> list[Point]:
    points = []
    for corner in range(10):
        angle, length = math.pi * (corner / 5 - 0.5), 1.0 if corner % 2 == 0 else 0.42
        points.append((length * math.cos(angle), length * math.sin(angle)))
    return points


_OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0, -1), (0.95, 0.8), (-0.95, 0.8)],
    "diamond": [(0, -1), (0.68, 0), (0, 1), (-0.68, 0)],
    "cross": [
        (-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3),
        (0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3),
    ],
    "star": _star(),
}  # fmt: skip
"""Corners in units of the radius, y downwards."""


def _turned(outline: list[Point], middle: Point, r: float, angle: float) -> list[Point]:
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    return [
        (middle[0] + r * (x * cosine - y * sine), middle[1] + r * (x * sine + y * cosine))
        for x, y in outline
    ]


def _sign(canvas: ImageDraw.ImageDraw, sign: Sign) -> None:
    font = _font(sign.font, _size_for(sign))
    left, top, right, bottom = font.getbbox(sign.text)
    half = ((right - left) / 2 + 5 * _SCALE, (bottom - top) / 2 + 5 * _SCALE)
    x, y = _middle(sign.cell, sign.shift, (half[0] / _SCALE, half[1] / _SCALE + 4))
    box = (x - half[0], y - half[1], x + half[0], y + half[1])
    canvas.line((x, y + half[1], x, y + half[1] + 8 * _SCALE), _INK, 3 * _SCALE)
    canvas.rounded_rectangle(box, 3 * _SCALE, _PAINT[sign.color], _INK, _SCALE)
    ink = (255, 255, 255) if sign.color in _DARK_BOARDS else _INK
    canvas.text((x - (left + right) / 2, y - (top + bottom) / 2), sign.text, ink, font)


def _size_for(sign: Sign) -> int:
    """The largest font at which the text fits its place, in drawn pixels."""
    room = (SIDE / 2 - 2 * _MARGIN - 10) * _SCALE
    size = 22 * _SCALE
    while size > 8 * _SCALE and _font(sign.font, size).getlength(sign.text) > room:
        size -= _SCALE
    return size


@lru_cache(maxsize=128)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(__file__).parent / "fonts" / FONT_FILES[name]), size)
