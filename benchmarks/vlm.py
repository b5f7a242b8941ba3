"""A vision-language model as stage 2 against transformers' own forward of the plain prompts, in one
run: speed, agreement, memory.

    python benchmarks/vlm.py --device cuda --precision bf16    # the 2B model's sizes
    python benchmarks/vlm.py --layers 2 --queries 2 --images 2 # a trial on a CPU

Sizes of Qwen3-VL-2B, as its config.json tells them, with random weights, a small vocabulary's
tokenizer and drawn pictures of 640 x 480 pixels. The plain way takes pictures' pixels for every
pair, as the model's publishers do, in batches of equal prompts.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import numpy as np
import torch
import typer
from jaxtyping import Float, Int, UInt8
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import AutoConfig, AutoModelForImageTextToText

from cir_core.layers.precision import DTYPES, rounded_products
from cir_core.ports import FusedQueries, Load
from cir_core.rerankers.vlm.config import Pixels, VlmConfig
from cir_core.rerankers.vlm.forms import FORMS
from cir_core.rerankers.vlm.model import VlmModel
from cir_core.rerankers.vlm.prompt import make_prompt
from cir_core.rerankers.vlm.scorer import VlmScorer
from cir_core.types import Precision

Found = TypeVar("Found")

SPECIAL = (
    *("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WORDS = "Judge whether the Document meets the Query: is blue and has longer sleeves. yes no"

SIDES = 480, 640
CELL = 32
TEXT = "is blue and has longer sleeves"


@dataclass(frozen=True)
class Shown:
    """``References``: query after query, its own picture."""

    seen: Float[Tensor, "query token width"]

    @property
    def of_query(self) -> Int[np.ndarray, " query"]:
        return np.arange(len(self.seen))

    def states(self, references: Int[np.ndarray, " some"]) -> Float[Tensor, "some token width"]:
        return self.seen[torch.from_numpy(references)]


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[Precision, typer.Option(help="Of the language model.")] = "fp32",
    form: Annotated[str, typer.Option(help=", ".join(FORMS))] = "qwen3-vl-reranker",
    layers: Annotated[int, typer.Option(help="Of the language model; 28 in the 2B.")] = 28,
    images: Annotated[int, typer.Option(help="Candidates.", min=1)] = 8,
    queries: Annotated[int, typer.Option(help="Of each candidate.", min=1)] = 32,
    batch: Annotated[int, typer.Option(help="Pairs the plain way takes at once.", min=1)] = 8,
    batches: Annotated[int, typer.Option(help="That it takes in all.", min=1)] = 4,
) -> None:
    """Pairs per second of both ways, after one pass of each, and how far their scores differ."""
    torch.manual_seed(0)
    where = torch.device(device)
    model = make_model(form, layers, where)
    plain_net = copy.deepcopy(model.net)
    pixels = draw_pictures(queries + images, model)
    encoder = model.encoder
    seen, seeing = timed(lambda: encoder.see(pixels), where)
    asked = FusedQueries.of(
        [], model.config.tokenizer()([TEXT] * queries), references=Shown(seen[:queries])
    )
    scorer = VlmScorer(model, asked, device=where, memory=None, precision=precision)
    pair = np.arange(queries * images)
    query, image = pair % queries, pair // queries
    candidates = scorer.prepare(seen[queries:])
    found, ours = timed(lambda: scorer.score(candidates, query, image), where)
    plain = Plain(model, plain_net.to(DTYPES[precision]), pixels, precision)
    some = pair[: batch * batches].reshape(-1, batch)[:, : len(pair)]
    told, theirs = timed(
        lambda: np.concatenate([plain.score(query[one], queries + image[one]) for one in some]),
        where,
    )
    first = found[: len(told)]
    speed, plainly = len(pair) / ours, len(told) / theirs
    load = Load.of(asked.lengths[query], image, images=images)
    flops = model.config.scoring_flops(load)
    print(
        f"{form}, {layers} layers, {device} in {precision}, {model.config.pictures.told}: "
        f"{len(pixels) / seeing:.1f} images/s seen in fp32; "
        f"{speed:.1f} pairs/s, plain {plainly:.1f}: {speed / plainly:.2f} times; "
        f"{flops / len(pair) / 1e9:.0f} GFLOP a pair (plain, without pictures "
        f"{model.config.plain_flops(load) / len(pair) / 1e9:.0f}), "
        f"{flops / ours / 1e12:.1f} TFLOP/s; largest difference "
        f"{np.abs(first - told).max():.2g} of scores with deviation {first.std():.2g}, "
        f"correlation {np.corrcoef(first, told)[0, 1]:.6f}"
    )
    if where.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU's memory at most")


def timed(work: Callable[[], Found], device: torch.device) -> tuple[Found, float]:
    """Of a second pass: the first one allocates."""
    work()
    wait(device)
    began = time.perf_counter()
    found = work()
    wait(device)
    return found, time.perf_counter() - began


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_model(form: str, layers: int, device: torch.device) -> VlmModel:
    tokens = Tokenizer(BPE())
    tokens.pre_tokenizer = ByteLevel(add_prefix_space=False)
    words = BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokens.train_from_iterator(["yes", "no", "Yes", "No", "True", "False"] * 9 + [WORDS], words)
    parsed = AutoConfig.for_model(
        "qwen3_vl",
        text_config={
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": layers,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 151936,
            "max_position_embeddings": 262144,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 5e6,
                "mrope_section": [24, 20, 20],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 24,
            "hidden_size": 1024,
            "num_heads": 16,
            "intermediate_size": 4096,
            "out_hidden_size": 2048,
            "patch_size": 16,
            "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        tie_word_embeddings=True,
        **{f"{of}_token_id": tokens.token_to_id(f"<|{of}_pad|>") for of in ("image", "video")},
        **{
            f"vision_{side}_token_id": tokens.token_to_id(f"<|vision_{side}|>")
            for side in ("start", "end")
        },
    )
    with device:
        net = AutoModelForImageTextToText.from_config(parsed, attn_implementation="sdpa").eval()
    config = VlmConfig(
        kind="vlm",
        architecture=parsed.to_dict(),
        form=FORMS[form],
        prompt=make_prompt(FORMS[form], TEMPLATE, tokens.to_str(), parsed.image_token_id),
        pixels=Pixels(
            least=CELL**2, most=SIDES[0] * SIDES[1], mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
        ),
        weights="",
        attached={"tokenizer.json": tokens.to_str(), "chat_template.jinja": TEMPLATE},
    )
    return VlmModel(config, net)


def draw_pictures(number: int, model: VlmModel) -> UInt8[Tensor, "picture row pixel 3"]:
    """Smooth ones, as photos are."""
    rng = np.random.default_rng(0)
    drawn = [
        Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
            SIDES[::-1], Image.Resampling.BICUBIC
        )
        for _ in range(number)
    ]
    return torch.from_numpy(np.stack([model.config.pictures.crop(one) for one in drawn]))


class Plain:
    """The whole model of each pair's whole prompt, its last token's logits."""

    def __init__(
        self,
        model: VlmModel,
        net: Any,
        pixels: UInt8[Tensor, "picture row pixel 3"],
        precision: Precision,
    ) -> None:
        self.config, self.net, self.precision = model.config, net, precision
        unpacked = [torch.from_numpy(model.config.pictures.unpack(one)) for one in pixels.numpy()]
        dtype = DTYPES[precision]
        self.patches = [model.encoder.patches(one).to(net.device, dtype) for one in unpacked]
        prompt, (text,) = model.config.prompt, model.config.tokenizer()([TEXT])
        cells = SIDES[0] * SIDES[1] // CELL**2
        self.ids = [
            same
            for one in prompt.whole(text)
            for same in [one] * (cells if one == prompt.image else 1)
        ]

    @torch.inference_mode()
    def score(
        self, reference: Int[np.ndarray, " pair"], candidate: Int[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " pair"]:
        prompt, device = self.config.prompt, self.net.device
        shown = np.stack([reference, candidate], axis=1)
        if self.config.candidate_first:
            shown = shown[:, ::-1]
        ids = torch.tensor([self.ids] * len(shown), device=device)
        grid = [1, 2 * SIDES[0] // CELL, 2 * SIDES[1] // CELL]
        with rounded_products(self.precision):
            logits = self.net(
                input_ids=ids,
                mm_token_type_ids=(ids == prompt.image).int(),
                pixel_values=torch.cat([self.patches[one] for one in shown.ravel()]),
                image_grid_thw=torch.tensor([grid] * shown.size, device=device),
                logits_to_keep=1,
                use_cache=False,
            ).logits[:, -1]
        found: np.ndarray = (logits[:, prompt.yes] - logits[:, prompt.no]).float().cpu().numpy()
        return found


if __name__ == "__main__":
    typer.run(main)
