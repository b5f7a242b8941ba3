"""Draws one garment with Pillow, with jitter of place, scale, tone and background.

All geometry is in units of the picture's side, with the garment's centre line at x = 0.5.
"""

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from cir_core.datasets.demo.garments import COLOURS, Garment

SIDE = 128
"""Pixels: twice the demo model's input, so that reports show something and resizing works."""

_Points = list[tuple[float, float]]
_Place = Callable[[_Points], _Points]
_Colour = tuple[int, int, int]
_Tone = NDArray[np.float64]

_SHOULDER, _TOP = 0.17, 0.2
_HEM = {
    "dress": {"cropped": 0.66, "regular": 0.8, "long": 0.9},
    "shirt": {"cropped": 0.52, "regular": 0.68, "long": 0.84},
    "toptee": {"cropped": 0.52, "regular": 0.68, "long": 0.84},
}
_FLARE = {"dress": 0.3, "shirt": 0.17, "toptee": 0.21}
_SLEEVE_REACH = {"sleeveless": 0.0, "short": 0.14, "elbow": 0.27, "long": 0.44}


def draw(garment: Garment, rng: np.random.Generator) -> Image.Image:
    """An RGB picture of the garment, ``SIDE`` x ``SIDE``; the jitter comes from ``rng``."""
    image = _background(rng)
    scale = rng.uniform(0.96, 1.12)
    shift = rng.uniform(-0.05, 0.05, size=2)
    tone = rng.uniform(-14, 14, size=3)

    def place(points: _Points) -> _Points:
        return [
            (
                SIDE * ((x - 0.5) * scale + 0.5 + shift[0]),
                SIDE * ((y - 0.5) * scale + 0.5 + shift[1]),
            )
            for x, y in points
        ]

    mask = Image.new("L", (SIDE, SIDE), 0)
    brush = ImageDraw.Draw(mask)
    outlines = [place(points) for points in _silhouette(garment)]
    for outline in outlines:
        brush.polygon(outline, fill=255)
    fabric = _fabric(garment, tone, rng)
    image.paste(fabric, mask=mask)
    pen = ImageDraw.Draw(image)
    edge = _shade(_toned(garment.colour, tone), 0.45)
    for outline in outlines:
        pen.line([*outline, outline[0]], fill=edge, width=1)
    _draw_neck(pen, garment, place, edge, tone)
    if garment.category == "shirt":
        _draw_buttons(pen, garment, place, edge)
    if garment.print != "none":
        _draw_print(pen, garment, place)
    return image


def _background(rng: np.random.Generator) -> Image.Image:
    light = rng.uniform(196, 236, size=3).mean() + rng.uniform(-10, 10, size=3)
    top = tuple(int(value) for value in light)
    image = Image.new("RGB", (SIDE, SIDE), top)
    floor = int(SIDE * rng.uniform(0.75, 1))
    ground = tuple(int(value) for value in light * rng.uniform(0.82, 0.95))
    ImageDraw.Draw(image).rectangle((0, floor, SIDE, SIDE), fill=ground)
    return image


def _silhouette(garment: Garment) -> list[_Points]:
    """Sleeves first, then the body that covers their roots."""
    hem, flare = _HEM[garment.category][garment.length], _FLARE[garment.category]
    waist_y = 0.48
    waist = 0.135 if garment.category == "dress" else 0.16
    right: _Points = [(0.5 + _SHOULDER, _TOP), (0.5 + 0.165, 0.36)]
    if hem > waist_y:
        right.append((0.5 + waist, waist_y))
    spread = waist + (flare - waist) * max(0.0, hem - waist_y) / 0.47
    right.append((0.5 + spread, hem))
    body = right + [(1 - x, y) for x, y in reversed(right)]
    reach = _SLEEVE_REACH[garment.sleeve]
    if reach == 0:
        return [body]
    root = 0.5 + _SHOULDER - 0.015
    tip = (root + 0.48 * reach + 0.03, _TOP + 0.88 * reach)  # hangs about 30 degrees off the body
    sleeve: _Points = [
        (root, _TOP),
        (tip[0] + 0.053, tip[1] - 0.023),
        (tip[0] - 0.053, tip[1] + 0.023),
        (root - 0.02, _TOP + 0.15),
    ]
    return [sleeve, [(1 - x, y) for x, y in sleeve], body]


def _fabric(garment: Garment, tone: _Tone, rng: np.random.Generator) -> Image.Image:
    colour = _toned(garment.colour, tone)
    if garment.pattern == "solid":
        return Image.new("RGB", (SIDE, SIDE), colour)
    second = np.array(_toned(garment.second_colour, tone), dtype=np.uint8)
    period = rng.uniform(17, 21)
    down, right = rng.uniform(0, period, size=2)
    y, x = np.arange(SIDE)[:, None] + down, np.arange(SIDE) + right
    pixels = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    pixels[:] = colour
    pixels[_is_second(garment.pattern, x, y, period)] = second
    return Image.fromarray(pixels)


def _is_second(
    pattern: str,
    x: Float[np.ndarray, " column"],
    y: Float[np.ndarray, "row 1"],
    period: float,
) -> Bool[np.ndarray, "row column"]:
    """Where the fabric has its second colour."""
    row, column = y % period / period, x % period / period
    match pattern:
        case "striped":
            where = row < 0.45
        case "vertical":
            where = column < 0.45
        case "diagonal":
            where = (x + y) / math.sqrt(2) % period / period < 0.45
        case "checked":
            where = (row < 0.5) ^ (column < 0.5)
        case "dotted":
            where = (row - 0.5) ** 2 + (column - 0.5) ** 2 < 0.1
        case _:
            raise ValueError(f"no drawing for the pattern {pattern!r}")
    return np.broadcast_to(where, (SIDE, SIDE))


def _draw_neck(
    pen: ImageDraw.ImageDraw, garment: Garment, place: _Place, edge: _Colour, tone: _Tone
) -> None:
    skin = (232, 196, 170)
    if garment.neck == "high":
        collar = place(
            [(0.42, _TOP - 0.07), (0.58, _TOP - 0.07), (0.6, _TOP + 0.01), (0.4, _TOP + 0.01)]
        )
        pen.polygon(collar, fill=_toned(garment.colour, tone), outline=edge)
        return
    shapes: dict[str, _Points] = {
        "v": [(0.4, _TOP - 0.01), (0.6, _TOP - 0.01), (0.5, _TOP + 0.17)],
        "square": [(0.4, _TOP - 0.01), (0.6, _TOP - 0.01), (0.6, _TOP + 0.1), (0.4, _TOP + 0.1)],
        "round": [
            (0.5 + 0.1 * math.cos(t), _TOP - 0.01 + 0.09 * math.sin(t))
            for t in np.linspace(0, math.pi, 12)
        ],
    }
    pen.polygon(place(shapes[garment.neck]), fill=skin, outline=edge)


def _draw_buttons(pen: ImageDraw.ImageDraw, garment: Garment, place: _Place, edge: _Colour) -> None:
    hem = _HEM["shirt"][garment.length]
    pen.line(place([(0.5, _TOP + 0.18), (0.5, hem)]), fill=edge, width=1)


def _draw_print(pen: ImageDraw.ImageDraw, garment: Garment, place: _Place) -> None:
    """A figure on the chest, white or black, on a plate of the other so that no fabric hides it."""
    centre = (0.5, 0.435)
    radius = 0.085
    dark = sum(COLOURS[garment.colour]) < 380
    ink, plate = ((250, 250, 250), (20, 20, 24)) if dark else ((20, 20, 24), (250, 250, 250))

    def around(points: _Points) -> _Points:
        return place([(centre[0] + radius * x, centre[1] + radius * y) for x, y in points])

    def circle(x: float, y: float, r: float) -> list[tuple[float, float]]:
        return around([(x - r, y - r), (x + r, y + r)])

    pen.ellipse(circle(0, 0, 1.25), fill=plate)
    if garment.print == "star":
        angles = np.arange(10) * math.pi / 5 - math.pi / 2
        reach = np.where(np.arange(10) % 2 == 0, 1.05, 0.45)
        pen.polygon(
            around(
                [(r * math.cos(a), r * math.sin(a)) for r, a in zip(reach, angles, strict=True)]
            ),
            fill=ink,
        )
    elif garment.print == "heart":
        t = np.linspace(0, 2 * math.pi, 24)
        x = 16 * np.sin(t) ** 3 / 17
        y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 17
        pen.polygon(around(list(zip(x.tolist(), y.tolist(), strict=True))), fill=ink)
    elif garment.print == "flower":
        for angle in np.arange(5) * 2 * math.pi / 5:
            pen.ellipse(circle(0.6 * math.cos(angle), 0.6 * math.sin(angle), 0.4), fill=ink)
    else:
        pen.ellipse(circle(0, 0, 0.95), fill=ink)
        pen.ellipse(circle(0.45, -0.1, 0.8), fill=plate)


def _toned(colour: str, tone: _Tone) -> _Colour:
    red, green, blue = np.clip(np.array(COLOURS[colour]) + tone, 0, 255).astype(int).tolist()
    return red, green, blue


def _shade(colour: _Colour, factor: float) -> _Colour:
    red, green, blue = (int(value * factor) for value in colour)
    return red, green, blue
