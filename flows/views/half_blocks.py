"""Pictures on a terminal: half blocks, whose two colours are two pixels one above the other."""

import base64
import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from rich.text import Text

from flows.views.tables import Console, print_texts

WIDTH = 28
"""Of a picture, in characters: three stand side by side on 90 columns."""

GAP = 2


def print_pictures(pictures: Mapping[str, str], console: Console) -> None:
    """JPEGs in base64 side by side, each below its title, as far as the terminal is wide; one that
    is empty cannot be shown, and leaves its place free."""
    shown = list(pictures.items())[: max(1, (console.width + GAP) // (WIDTH + GAP))]
    drawn = [_lines(content) for _, content in shown]
    heights = max(map(len, drawn))
    titles = "".join(f"{title[:WIDTH]:<{WIDTH + GAP}}" for title, _ in shown)
    blank = Text(" " * WIDTH)
    rows = [
        Text(" " * GAP).join(lines[row] if row < len(lines) else blank for lines in drawn)
        for row in range(heights)
    ]
    print_texts(console, [Text(titles.rstrip()), *rows])


def _lines(content: str) -> list[Text]:
    if not content:
        return []
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
        picture.load()
        return half_blocks(picture.convert("RGB"), WIDTH)


def half_blocks(picture: Image.Image, width: int) -> list[Text]:
    """A picture as lines of ``width`` characters, with its proportions: two pixels a character."""
    height = max(1, round(picture.height * width / picture.width))
    pixels = np.asarray(picture.resize((width, height + height % 2), Image.Resampling.BOX))
    lines = []
    for row in zip(pixels[::2], pixels[1::2], strict=True):
        line = Text()
        for upper, lower in zip(*row, strict=True):
            line.append("▀", f"{_rgb(upper)} on {_rgb(lower)}")
        lines.append(line)
    return lines


def _rgb(colour: np.ndarray) -> str:
    return f"rgb({','.join(map(str, colour))})"
