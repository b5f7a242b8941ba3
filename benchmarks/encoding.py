"""Does the ViT wait for images? A bare loop over pixels in memory against files through the feed.

    python benchmarks/encoding.py                     # both sizes on the CPU, under two minutes
    python benchmarks/encoding.py --device cuda --images 4096 --batch 64 --json encoding.json

Both ways are measured in turn, on the same machine in the same process; their ratio is what counts.
Starting the worker processes, once a task, is measured apart and not part of the ratio.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.garments import CATEGORIES, draw_garment
from cir_core.models.config import DEMO_VISION, VisionConfig
from cir_core.models.vision import VisionTransformer, normalise
from flows.machine import find_device, find_workers
from storage.images import sha256_of_bytes
from tasks.decode import ImageFile
from tasks.pixels import batches, feed_pixels, load_pixels

FULL = VisionConfig(image_size=384, patch_size=16, width=768, depth=12, heads=12, mlp_width=3072)
DRAWN = 32
"""Different pictures; more images are these again."""


@dataclass
class Measured:
    """Seconds of all rounds; ``bare`` and ``fed`` are of the same ``images``."""

    name: str
    device: str
    threads: int
    workers: int
    batch: int
    images: int = 0
    bare: float = 0.0
    fed: float = 0.0
    start: float = 0.0
    decoding: float = 0.0

    def told(self) -> dict[str, Any]:
        fed = self.fed - self.start
        return asdict(self) | {
            "bare_images_per_s": self.images / self.bare,
            "fed_images_per_s": self.images / fed,
            "decoded_images_per_s": self.images / (self.decoding - self.start),
            "fed_of_bare": self.bare / fed,
        }


def photo(rng: np.random.Generator) -> Image.Image:
    """640 x 480, smooth with some noise: as a JPEG some 90 KB, like a photo of that size."""
    coarse = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC))
    noisy = smooth.astype(int) + rng.integers(-8, 9, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def garment(rng: np.random.Generator) -> Image.Image:
    return draw(draw_garment(CATEGORIES[0], rng), rng)


def write_files(root: Path, kind: str, images: int) -> list[ImageFile]:
    rng = np.random.default_rng(0)
    files = []
    for row in range(min(images, DRAWN)):
        path = root / (f"{row}.jpg" if kind == "full" else f"{row}.png")
        (photo(rng) if kind == "full" else garment(rng)).save(path, quality=90)
        files.append(ImageFile(path.stem, path.name, sha256_of_bytes(path.read_bytes())))
    return [files[row % len(files)] for row in range(images)]


class Rounds:
    """One ViT, one set of files, and the ways to bring them together."""

    def __init__(self, root: Path, files: list[ImageFile], vision: VisionTransformer) -> None:
        self.root, self.files, self.vision = root, files, vision
        self.device = vision.cls_token.device

    def feed(self, rows: range, batch: int, workers: int) -> Iterator[Tensor]:
        with feed_pixels(
            self.root,
            self.files,
            batches(rows, batch),
            self.vision.config.image_size,
            device=self.device,
            workers=workers,
        ) as fed:
            for one in fed:
                yield one.pixels

    @torch.inference_mode()
    def see(self, pixels: Iterator[Tensor]) -> float:
        """Seconds until the ViT has seen all of it."""
        began = time.perf_counter()
        for batch in pixels:
            self.vision(normalise(batch))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter() - began

    def measure(self, found: Measured) -> None:
        """One round, added to what was found before."""
        rows, size = range(len(self.files)), self.vision.config.image_size
        first = load_pixels(self.root, self.files[: found.batch], size).pixels.to(self.device)
        sizes = [len(one) for one in batches(rows, found.batch)]
        began = time.perf_counter()
        list(self.feed(range(1), 1, found.workers))
        found.start += time.perf_counter() - began
        began = time.perf_counter()
        for _ in self.feed(rows, found.batch, found.workers):
            pass
        found.decoding += time.perf_counter() - began
        found.fed += self.see(self.feed(rows, found.batch, found.workers))
        found.bare += self.see(first[:many] for many in sizes)
        found.images += len(rows)


def run(name: str, config: VisionConfig, images: int, rounds: int, found: Measured) -> Measured:
    torch.manual_seed(0)
    vision = VisionTransformer(config).eval().to(found.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Rounds(Path(folder), write_files(Path(folder), name, images), vision)
        some = load_pixels(bench.root, bench.files[: found.batch], config.image_size).pixels
        bench.see(iter([some.to(found.device)]))  # the first pass allocates
        for _ in range(rounds):
            bench.measure(found)
    return found


def main(
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    workers: Annotated[int | None, typer.Option(help="As of a run.", min=0)] = None,
    images: Annotated[int, typer.Option(help="A round, at full size.", min=1)] = 8,
    demo_images: Annotated[int, typer.Option(help="A round, at the demo's size.", min=1)] = 2048,
    batch: Annotated[int, typer.Option(help="Images per forward pass, full size.", min=1)] = 4,
    rounds: Annotated[int, typer.Option(help="Of both ways in turn.", min=1)] = 2,
    out: Annotated[Path | None, typer.Option("--json", help="Write all numbers there.")] = None,
) -> None:
    """Images per second of a bare ViT, and of files decoded, fed and seen by it."""
    where = find_device(device)
    processes, threads = find_workers(workers, where), torch.get_num_threads()
    told = []
    for name, config, count, size in (
        ("full", FULL, images, batch),
        ("demo", DEMO_VISION, demo_images, 32),
    ):
        found = run(name, config, count, rounds, Measured(name, where, threads, processes, size))
        told.append(found.told())
        one = told[-1]
        print(
            f"{name}: ViT alone {one['bare_images_per_s']:.2f} images/s, "
            f"fed {one['fed_images_per_s']:.2f}: {one['fed_of_bare']:.1%}; "
            f"decoding alone {one['decoded_images_per_s']:.0f} images/s, "
            f"start of {processes} workers {found.start / rounds:.2f} s"
        )
    if out:
        out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
