"""Hugging Face's CLIP and SigLIP against ours, random weights, through their folders; and textual
inversion against a plain one over Hugging Face's text model."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from cir_core.errors import CheckpointRefused, UsageError
from cir_core.families import load_model, parse_config
from storage.models.folders import model_sha256, read_checkpoint
from tasks.models.convert import convert, convert_back
from tasks.models.opening import open_retriever, read_retriever_config
from tests.support.tiny_checkpoints import tiny_tensor
from tests.support.tiny_towers import END, START, clip_tokenizer, siglip_tokenizer

pytestmark = [pytest.mark.numeric, pytest.mark.slow]

PARITY = 1e-5
VISION = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 32,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
TEXT = {
    "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40,
    "max_position_embeddings": 32,
}  # fmt: skip
TEXTS = ["is red", "", "a longer text: it IS red, it is 1 of 2"]


def filled(model: Any) -> Any:
    """Of realistic magnitude: freshly made biases are 0 and norms 1, which hides mix-ups."""
    state = {
        name: torch.tensor(1.5).expand(tensor.shape)
        if name.startswith("logit")
        else tiny_tensor(name, list(tensor.shape), "tower")
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True)
    return model.eval()


def write_folder(
    folder: Path, model: Any, tokenizer: str, special: dict[str, str], pictures: dict[str, Any]
) -> Path:
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(model.config.to_dict()))
    (folder / "tokenizer.json").write_text(tokenizer)
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    (folder / "preprocessor_config.json").write_text(json.dumps(pictures))
    return folder


@pytest.fixture(scope="module")
def clip() -> Any:
    from transformers import CLIPConfig, CLIPModel

    ids = {"vocab_size": 517, "eos_token_id": 516, "bos_token_id": 515, "pad_token_id": 516}
    config = CLIPConfig(text_config=TEXT | ids, vision_config=VISION, projection_dim=16)
    return filled(CLIPModel(config))


@pytest.fixture(scope="module")
def siglip() -> Any:
    from transformers import SiglipConfig, SiglipModel

    ids = {"vocab_size": 44, "eos_token_id": 1, "bos_token_id": 1}
    return filled(SiglipModel(SiglipConfig(text_config=TEXT | ids, vision_config=VISION)))


@pytest.fixture
def clip_folder(clip: Any, tmp_path: Path) -> Path:
    special = {"bos_token": START, "eos_token": END, "tokenizer_class": "CLIPTokenizer"}
    pictures = {
        "size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32},
        "do_center_crop": True, "resample": 3, "image_mean": [0.48, 0.46, 0.41],
        "image_std": [0.27, 0.26, 0.28],
    }  # fmt: skip
    return write_folder(tmp_path / "clip hf", clip, clip_tokenizer(), special, pictures)


@pytest.fixture
def siglip_folder(siglip: Any, tmp_path: Path) -> Path:
    special = {"eos_token": "</s>", "pad_token": "</s>", "tokenizer_class": "SiglipTokenizer"}
    pictures = {
        "size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }  # fmt: skip
    return write_folder(tmp_path / "siglip hf", siglip, siglip_tokenizer(), special, pictures)


def crops() -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8))


def scaled(mean: list[float], std: list[float]) -> Tensor:
    pixels = crops().permute(0, 3, 1, 2).float() / 255
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=PARITY)


@torch.no_grad()
def test_clip_is_hugging_faces(clip: Any, clip_folder: Path, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    made = convert(clip_folder, tmp_path / "clip")
    assert (made.kind, made.dropped) == ("clip", ("logit_scale",))
    model: Any = open_retriever(made.path)
    assert model.encoder.pictures.fit == "crop"
    states = model.encoder.see(crops())
    pixels = scaled([0.48, 0.46, 0.41], [0.27, 0.26, 0.28])
    images = clip.get_image_features(pixel_values=pixels).pooler_output
    ids = model.config.tokenizer()(TEXTS)
    assert ids == CLIPTokenizer.from_pretrained(clip_folder)(TEXTS)["input_ids"]
    padded = nn.utils.rnn.pad_sequence([torch.tensor(one) for one in ids], True, 516)
    texts = clip.get_text_features(input_ids=padded).pooler_output
    close(model.image_features(states), images)
    close(model.text_features(ids, model.encoder.device), texts)
    unit = functional.normalize(images, dim=-1)
    close(model.embed(states), unit)
    for weight in (0.5, 0.2):
        mixed = (1 - weight) * unit + weight * functional.normalize(texts, dim=-1)
        asked = model.weighed(weight).ask(ids, states)
        close(asked.embeddings, functional.normalize(mixed, dim=-1))
        assert asked.z_t is None
    assert model.config.text_weight == 0.5, "the model itself is as it was"


@torch.no_grad()
def test_siglip_is_hugging_faces(siglip: Any, siglip_folder: Path, tmp_path: Path) -> None:
    """Its text tower reads the padding, up to the last position."""
    made = convert(siglip_folder, tmp_path / "siglip")
    assert (made.kind, made.dropped) == ("siglip", ("logit_scale", "logit_bias"))
    model: Any = open_retriever(made.path)
    pictures = model.encoder.pictures
    assert (pictures.fit, pictures.resample) == ("squash", "bilinear")
    states = model.encoder.see(crops())
    images = siglip.get_image_features(pixel_values=scaled([0.5] * 3, [0.5] * 3)).pooler_output
    ids = model.config.tokenizer()(TEXTS)
    padded = torch.tensor([one + [1] * (32 - len(one)) for one in ids])
    texts = siglip.get_text_features(input_ids=padded).pooler_output
    close(model.image_features(states), images)
    close(model.text_features(ids, model.encoder.device), texts)
    asked = model.ask(ids, states)
    unit = [functional.normalize(one, dim=-1) for one in (images, texts)]
    close(asked.embeddings, functional.normalize(unit[0] + unit[1], dim=-1))
    assert asked.z_t is None


@torch.no_grad()
def test_inversion_is_a_plain_one_over_hugging_faces_text_model(
    clip: Any, clip_folder: Path, tmp_path: Path
) -> None:
    """The plain one embeds the prompt's tokens, puts phi's word over "$", and reads the last; phi
    gets the image's features as they are, not of unit length."""
    shapes = {"layers.0": (64, 16), "layers.3": (64, 64), "layers.6": (24, 64)}
    phi = {
        f"{name}.{leaf}": tiny_tensor(
            f"{name}.{leaf}", list(shape[: 1 + (leaf == "weight")]), "phi"
        )
        for name, shape in shapes.items()
        for leaf in ("weight", "bias")
    }
    torch.save({"epoch": 1, "Phi": phi}, tmp_path / "phi.pt")
    convert(clip_folder, tmp_path / "clip")
    made = convert(tmp_path / "phi.pt", tmp_path / "searle", clip=tmp_path / "clip")
    model: Any = open_retriever(made.path)
    states, caption = model.encoder.see(crops()[:1]), "has 2 $ on it, is red"
    dollar = model.config.pseudo_word
    hidden = clip.get_image_features(
        pixel_values=scaled([0.48, 0.46, 0.41], [0.27, 0.26, 0.28])[:1]
    ).pooler_output
    for name in shapes:
        hidden = functional.linear(hidden, phi[f"{name}.weight"], phi[f"{name}.bias"])
        hidden = hidden if name == "layers.6" else functional.gelu(hidden)
    ids = model.config.tokenizer()([caption])
    tokenizer = read_retriever_config(tmp_path / "clip").tokenizer()
    assert ids == tokenizer([f"a photo of $ that {caption}"])
    first = ids[0].index(dollar)
    assert ids[0].count(dollar) == 2, "the caption's own is a word like others"
    table = clip.text_model.embeddings.token_embedding

    def put(module: nn.Module, given: Any, words: Tensor) -> Tensor:
        words = words.clone()
        words[0, first] = hidden[0]
        return words

    handle = table.register_forward_hook(put)
    expected = clip.get_text_features(input_ids=torch.tensor(ids)).pooler_output
    handle.remove()
    close(model.ask(ids, states).embeddings, functional.normalize(expected, dim=-1))
    torch.save({"Phi": phi | {"layers.0.weight": torch.zeros(64, 15)}}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointRefused, match=r"misshapen: layers\.0\.weight"):
        convert(tmp_path / "bad.pt", tmp_path / "bad", clip=tmp_path / "clip")
    with pytest.raises(UsageError, match="needs a converted CLIP"):
        convert(tmp_path / "phi.pt", tmp_path / "again", clip=made.path)


def test_the_tokenizer_is_part_of_the_model_and_of_its_name(
    clip_folder: Path, tmp_path: Path
) -> None:
    folder = convert(clip_folder, tmp_path / "clip").path
    name = model_sha256(folder)
    config = json.loads((folder / "config.json").read_text())
    assert len(config["attached"]["tokenizer.json"]) == 64
    (clip_folder / "tokenizer.json").write_text(clip_tokenizer() + " ")
    assert model_sha256(convert(clip_folder, tmp_path / "other").path) != name
    (folder / "tokenizer.json").write_text(clip_tokenizer() + "\n")
    with pytest.raises(CheckpointRefused, match="changed since it was converted"):
        open_retriever(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointRefused, match="changed since it was converted"):
        model_sha256(folder)


def test_texts_are_never_cut_off_or_padded_and_marks_in_them_are_text(
    clip_folder: Path, siglip_folder: Path, tmp_path: Path
) -> None:
    """SigLIP's file asks for both, at four tokens."""
    read = read_retriever_config(convert(siglip_folder, tmp_path / "s").path).tokenizer()
    assert read(["is red", "red, is! RED is red"]) == [[3, 2, 1], [2, 3, 2, 3, 2, 1]]
    assert read.without_known_words(["is qqq", "qqq", "", "é"]) == [False, True, False, True]
    config = read_retriever_config(convert(clip_folder, tmp_path / "c").path)
    ids = config.tokenizer()([f"is red {END}", "is red " * 40])
    assert ids[0].count(516) == 1
    assert len(ids[1]) == 82 > config.positions, "what is too long is the run's to list"
    unknown = config.tokenizer().without_known_words(["is qqq", "qqq", "", "a", "红色"])
    assert unknown == [False, True, False, False, True]


def change(folder: Path, file: str, **changes: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "changes", "complaint"),
    [
        ("config.json", {"model_type": "siglip2"}, "NaFlex is not"),
        ("config.json", {"vision_config": VISION | {"hidden_act": "relu"}}, "is 'relu', known"),
        ("config.json", {"vision_config": VISION | {"image_size": 40}}, "takes 40"),
        ("config.json", {"vision_config": VISION | {"num_attention_heads": 5}}, "of heads"),
        ("config.json", {"vision_config": VISION | {"intermediate_size": 30}}, "misshapen"),
        ("config.json", {"vision_config": VISION | {"vision_use_head": False}}, "no image embed"),
        ("preprocessor_config.json", {"size": {"height": 16, "width": 16}}, "16 px, and the tower"),
        ("preprocessor_config.json", {"size": {"height": 32, "width": 16}}, "makes no square"),
        ("preprocessor_config.json", {"do_normalize": False}, "do_normalize is false"),
        ("preprocessor_config.json", {"resample": 1}, "resample 1 is unknown"),
        ("tokenizer_config.json", {"eos_token": "▁red"}, "eos_token is read as 1, not 2"),
        ("tokenizer_config.json", {"pad_token": "<pad>"}, "which it does not know"),
        ("tokenizer_config.json", {"padding_side": "left"}, "pads on the left"),
    ],
)
def test_what_is_not_supported_is_refused(
    siglip_folder: Path, tmp_path: Path, file: str, changes: dict[str, Any], complaint: str
) -> None:
    change(siglip_folder, file, **changes)
    with pytest.raises(CheckpointRefused, match=complaint):
        convert(siglip_folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_whole_or_of_another_width_is_refused(
    siglip_folder: Path, tmp_path: Path
) -> None:
    weights = siglip_folder / "model.safetensors"
    whole = load_file(weights)
    for lost, complaint in (
        ("vision_model.head.attention.in_proj_weight", r"in_proj_weight\[key\]"),
        ("text_model.head.bias", r"1 missing: text_model\.head\.bias"),
    ):
        save_file({name: one for name, one in whole.items() if name != lost}, weights)
        with pytest.raises(CheckpointRefused, match=complaint):
            convert(siglip_folder, tmp_path / "out")
    save_file(whole | {"vision_model.extra": torch.zeros(1)}, weights)
    with pytest.raises(CheckpointRefused, match=r"1 extra: vision_model\.extra"):
        convert(siglip_folder, tmp_path / "out")
    (siglip_folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointRefused, match="not whole"):
        convert(siglip_folder, tmp_path / "out")


def test_what_is_read_is_what_was_converted(clip_folder: Path, tmp_path: Path) -> None:
    path = convert(clip_folder, tmp_path / "clip").path
    read = read_checkpoint(path)
    model = load_model(parse_config(read.config, "clip"), read.tensors, "clip")
    assert model.config == read_retriever_config(path)
    with pytest.raises(CheckpointRefused, match="no published format"):
        convert_back(path, tmp_path / "clip.pt")
