"""CLIP and SigLIP of a few thousand weights, and tokenizers of a few words for them."""

from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from cir_core.layers.token_files import TOKENIZER_FILE
from cir_core.retrievers.clip.config import ClipConfig, InversionConfig
from cir_core.retrievers.clip.model import ClipModel, InversionModel
from cir_core.retrievers.siglip.config import SiglipConfig
from cir_core.retrievers.siglip.model import SiglipModel
from tests.support.tiny_models import fill

START, END = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer() -> str:
    """CLIP's kind: bytes, those that end a word, a few merges, and texts between two marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("i", "s</w>")]
    words = [*alphabet, *(f"{one}</w>" for one in alphabet), *(a + b for a, b in merges)]
    table = {word: number for number, word in enumerate([*words, START, END])}
    engine = Tokenizer(
        models.BPE(table, merges, unk_token=END, end_of_word_suffix="</w>", fuse_unk=False)
    )
    engine.add_special_tokens([START, END])
    engine.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    words_alone = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words_alone, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    engine.post_processor = processors.RobertaProcessing(
        (END, table[END]), (START, table[START]), trim_offsets=False, add_prefix_space=False
    )
    return str(engine.to_str())


def siglip_tokenizer() -> str:
    """SigLIP's kind: pieces, and an end mark, which is the padding too. It would cut texts off."""
    letters = [(one, -5.0) for one in "▁abcdefghijklmnopqrstuvwxyz0123456789,.!"]
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁red", -1.0), ("▁is", -1.0), *letters]
    engine = Tokenizer(models.Unigram(pieces, unk_id=0))
    engine.add_special_tokens(["</s>"])
    engine.pre_tokenizer = pre_tokenizers.Metaspace()
    engine.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    engine.enable_truncation(4)
    engine.enable_padding(length=4, pad_id=1, pad_token="</s>")
    return str(engine.to_str())


def _content(kind: str, tokenizer: str, positions: int = 160) -> dict[str, Any]:
    size = Tokenizer.from_str(tokenizer).get_vocab_size()
    block = {"activation": "quick_gelu" if kind == "clip" else "gelu_pytorch_tanh", "epsilon": 1e-5}
    return {
        "vision": {
            "kind": kind, "image_size": 16, "patch_size": 8, "width": 12, "depth": 2, "heads": 3,
            "mlp_width": 20, "fit": "crop", "resample": "bicubic", "mean": [0.5, 0.4, 0.3],
            "std": [0.5, 0.5, 0.5], **block,
        },
        "text": {
            "vocabulary_size": size, "width": 16, "layers": 2, "heads": 2, "feed_forward": 24,
            "positions": positions, **block,
        },
        "attached": {TOKENIZER_FILE: tokenizer},
    }  # fmt: skip


def tiny_clip() -> ClipModel:
    content = {"kind": "clip", "embedding": 8, **_content("clip", clip_tokenizer())}
    return fill(ClipModel(ClipConfig.model_validate(content)), 5)


def tiny_siglip() -> SiglipModel:
    marks = {"padding": 1, "strip_punctuation": True}
    content = {"kind": "siglip", **marks, **_content("siglip", siglip_tokenizer())}
    return fill(SiglipModel(SiglipConfig.model_validate(content)), 6)


def tiny_inversion(pseudo_word: int = 2, positions: int = 160) -> InversionModel:
    content = {"kind": "inversion", "embedding": 8, "hidden": 32, "pseudo_word": pseudo_word}
    content |= _content("clip", clip_tokenizer(), positions)
    return fill(InversionModel(InversionConfig.model_validate(content)), 7)
