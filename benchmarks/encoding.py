"""Does the ViT wait for images? A bare loop over pixels in memory against files through the feed.

    python benchmarks/encoding.py                     # both sizes on the CPU, under two minutes
    python benchmarks/encoding.py --device cuda --images 4096 --batch 64 --json encoding.json

Both ways are measured in turn, on the same machine in the same process; their ratio is what counts.
On a busy machine CPU time says more than the clock, and less where a core is free for decoding.
Starting the worker processes, once a task, is measured apart and not part of the ratio.
"""

import json
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from full_size import VISION as FULL
from PIL import Image
from torch import Tensor

from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.garments import CATEGORIES, draw_garment
from cir_core.layers.config import DEMO_VISION
from cir_core.layers.encoders import ImageConfig, image_encoder
from cir_core.layers.vision import FrozenEncoder
from cir_core.types import Precision
from flows.machine import find_device, find_workers
from storage.sources.images import sha256_of_bytes
from tasks.feed.decode import ImageFile
from tasks.feed.pixels import batches, feed_pixels, load_pixels

DRAWN = 32
"""Different pictures; more images are these again."""


@dataclass
class Cost:
    """Seconds on the clock, and of all cores together, worker processes included."""

    clock: float = 0.0
    cpu: float = 0.0

    @contextmanager
    def added(self) -> Iterator[None]:
        clock, cpu = time.perf_counter(), _cpu()
        yield
        self.clock += time.perf_counter() - clock
        self.cpu += _cpu() - cpu


def _cpu() -> float:
    mine, theirs = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return mine.ru_utime + mine.ru_stime + theirs.ru_utime + theirs.ru_stime


@dataclass
class Measured:
    """Sums over all rounds; ``bare``, ``fed`` and ``decoding`` are of the same ``images``."""

    name: str
    device: str
    threads: int
    workers: int
    batch: int
    images: int = 0
    bare: Cost = field(default_factory=Cost)
    fed: Cost = field(default_factory=Cost)
    start: Cost = field(default_factory=Cost)
    decoding: Cost = field(default_factory=Cost)

    def told(self) -> dict[str, Any]:
        clock, cpu = (getattr(self.fed, w) - getattr(self.start, w) for w in ("clock", "cpu"))
        decoding = self.decoding.cpu - self.start.cpu
        return asdict(self) | {
            "bare_images_per_s": self.images / self.bare.clock,
            "fed_images_per_s": self.images / clock,
            "fed_of_bare": self.bare.clock / clock,
            "fed_of_bare_cpu": self.bare.cpu / cpu,
            "decoding_cpu_ms_an_image": 1e3 * decoding / self.images,
            "vit_cpu_ms_an_image": 1e3 * self.bare.cpu / self.images,
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

    def __init__(self, root: Path, files: list[ImageFile], vision: FrozenEncoder) -> None:
        self.root, self.files, self.vision = root, files, vision
        self.device = vision.position.device

    def feed(self, rows: range, batch: int, workers: int) -> Iterator[Tensor]:
        with feed_pixels(
            self.root,
            self.files,
            batches(rows, batch),
            self.vision.pictures,
            device=self.device,
            workers=workers,
        ) as fed:
            for one in fed:
                yield one.pixels

    @torch.inference_mode()
    def see(self, pixels: Iterable[Tensor]) -> None:
        for batch in pixels:
            self.vision.see(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def measure(self, found: Measured) -> None:
        """One round, added to what was found before."""
        rows, pictures = range(len(self.files)), self.vision.pictures
        first = load_pixels(self.root, self.files[: found.batch], pictures).pixels
        first = first.to(self.device)
        with found.start.added():
            list(self.feed(range(1), 1, found.workers))
        with found.decoding.added():
            for _ in self.feed(rows, found.batch, found.workers):
                pass
        with found.fed.added():
            self.see(self.feed(rows, found.batch, found.workers))
        with found.bare.added():
            self.see(first[: len(one)] for one in batches(rows, found.batch))
        found.images += len(rows)


def run(
    name: str,
    config: ImageConfig,
    images: int,
    rounds: int,
    found: Measured,
    precision: Precision = "fp32",
) -> Measured:
    torch.manual_seed(0)
    vision = image_encoder(config).eval().cast(precision).to(found.device)
    with tempfile.TemporaryDirectory() as folder:
        bench = Rounds(Path(folder), write_files(Path(folder), name, images), vision)
        some = load_pixels(bench.root, bench.files[: found.batch], vision.pictures).pixels
        bench.see([some.to(found.device)])  # the first pass allocates
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
            f"fed {one['fed_images_per_s']:.2f}: {one['fed_of_bare']:.1%} by the clock, "
            f"{one['fed_of_bare_cpu']:.1%} by CPU time; "
            f"{one['vit_cpu_ms_an_image']:.2f} ms of CPU for the ViT, "
            f"{one['decoding_cpu_ms_an_image']:.2f} ms for decoding an image; "
            f"{processes} workers start in {found.start.clock / rounds:.2f} s"
        )
    if out:
        out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
