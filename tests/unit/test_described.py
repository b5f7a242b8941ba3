"""Described images as pre-training reads them: as the model that comes of it will see them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cir_core.layers.preprocess import Fit, Preprocess, prepare
from flows.own import complete, open_dataset
from flows.settings import Settings
from tasks.training.described import read_described
from tests.support.tiny_models import TEXT

NAMES = ("long.png", "tall.png")


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    """Pictures that padding, cropping and squashing make different squares of."""
    rng = np.random.default_rng(3)
    for name, shape in zip(NAMES, ((20, 60, 3), (50, 20, 3)), strict=True):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(tmp_path / name)
    rows = "".join(f"{name},a red dress\n" for name in NAMES)
    (tmp_path / "descriptions.csv").write_text(f"image,text\n{rows}")
    (tmp_path / "queries.csv").write_text("reference,text\nlong.png,is red\n")
    return tmp_path


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_pictures_become_square_as_the_model_says(catalogue: Path, fit: Fit) -> None:
    dataset = open_dataset(complete(Settings(dataset="own", data_root=catalogue)))
    protocol = dataset.protocol(None).name
    read = read_described(catalogue, dataset, protocol, TEXT, Preprocess(16, fit=fit))
    squares = [prepare(Image.open(catalogue / name), 16, fit=fit) for name in NAMES]
    assert torch.equal(read.pixels, torch.from_numpy(np.stack(squares)))
