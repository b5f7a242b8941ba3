"""Vision-language models of a few thousand weights, each as a Hugging Face folder holds it."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as Decoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedTokenizerFast
from transformers.initialization import no_init_weights

from cir_core.rerankers.vlm.config import Pixels, VlmConfig
from cir_core.rerankers.vlm.forms import Form
from cir_core.rerankers.vlm.prompt import make_prompt

Kind = Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"]

SPECIAL = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    *("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
)

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen's, without tools."""

WORDS = ["yes no Yes No True False", "is blue instead of red", "Query: Document: Candidate:"]


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE that has the answers as single tokens."""
    tokens = Tokenizer(BPE())
    tokens.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokens.decoder = Decoder()
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=list(SPECIAL),
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    answers = ["yes", "no", "Yes", "No", "True", "False"]
    tokens.train_from_iterator(answers * 9 + WORDS, trainer)
    return tokens


def tiny_config(kind: Kind, tokens: Tokenizer, **changes: Any) -> Any:
    ids = {
        "image_token_id": tokens.token_to_id("<|image_pad|>"),
        "video_token_id": tokens.token_to_id("<|video_pad|>"),
        "vision_start_token_id": tokens.token_to_id("<|vision_start|>"),
        "vision_end_token_id": tokens.token_to_id("<|vision_end|>"),
    }
    text: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": tokens.get_vocab_size(),
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000.0,
            "mrope_section": [2, 1, 1],
        },
        "pad_token_id": None,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
    else:
        vision |= {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32}
    if kind == "qwen2_5_vl":
        vision |= {"window_size": 16, "fullatt_block_indexes": [1]}
    if kind == "qwen3_vl":
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        text["rope_parameters"]["mrope_interleaved"] = True
    return AutoConfig.for_model(kind, text_config=text, vision_config=vision, **ids, **changes)


def tiny_net(kind: Kind, tokens: Tokenizer, **changes: Any) -> Any:
    """Every weight drawn anew, with magnitudes of a trained model."""
    config = tiny_config(kind, tokens, **changes)
    with no_init_weights():
        net = AutoModelForImageTextToText.from_config(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                is_norm = name.endswith("weight")
                parameter.copy_(1 + 0.2 * drawn if is_norm else 0.1 * drawn)
            else:
                parameter.copy_(1.2 * drawn / parameter[0].numel() ** 0.5)
    return net.eval()


def write_folder(folder: Path, kind: Kind, *, shard: str = "50GB", **changes: Any) -> Any:
    """As ``save_pretrained`` and a publisher's processor leave it; returns the model."""
    tokens = tiny_tokenizer()
    net = tiny_net(kind, tokens, **changes)
    net.save_pretrained(folder, max_shard_size=shard)
    PreTrainedTokenizerFast(tokenizer_object=tokens).save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    patch = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    size = {"shortest_edge": 4 * 64, "longest_edge": 24 * 64}
    scaling = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]}
    written = {"image_processor_type": "Qwen2VLImageProcessor", "size": size, **patch, **scaling}
    (folder / "preprocessor_config.json").write_text(json.dumps(written))
    return net


def vlm_config(net: Any, form: Form, tokens: Tokenizer) -> VlmConfig:
    """As conversion writes it."""
    architecture = json.loads(json.dumps(net.config.to_dict()))
    prompt = make_prompt(form, TEMPLATE, tokens.to_str(), net.config.image_token_id)
    return VlmConfig(
        kind="vlm",
        architecture=architecture,
        form=form,
        prompt=prompt,
        pixels=Pixels(least=4 * 64, most=24 * 64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)),
        weights="",
        attached={"tokenizer.json": tokens.to_str(), "chat_template.jinja": TEMPLATE},
    )
