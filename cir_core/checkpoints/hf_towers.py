"""Hugging Face's ``CLIPModel`` and ``SiglipModel`` as our kinds ``clip`` and ``siglip``, and the
phi of SEARLE and LinCIR beside a converted CLIP as our kind ``inversion``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from torch import Tensor

from cir_core.checkpoints.conversion import Converted, KeyTable, rename, unwrapped
from cir_core.checkpoints.hf_pictures import picture_fields
from cir_core.checkpoints.hf_tower_names import (
    CLIP,
    HEAD,
    PHI,
    PROJECTIONS,
    SCALES,
    SIGLIP,
    TEXT_SIZES,
    UNSAID,
    VISION_SIZES,
)
from cir_core.errors import CheckpointRefused
from cir_core.families import parse_config
from cir_core.layers.preprocess import CHANNELS
from cir_core.layers.token_files import TOKENIZER_FILE, FileTokenizer
from cir_core.layers.transformer import Activation
from cir_core.retrievers.clip.config import TEMPLATE, ClipConfig

MODEL_TYPES = ("clip", "siglip", "siglip2")


@dataclass(frozen=True)
class HubFolder:
    """What a Hugging Face folder holds beside its weights, parsed: ``config.json``, that of the
    image processor, ``tokenizer_config.json``; and ``tokenizer.json`` as it is."""

    config: Mapping[str, Any]
    pictures: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    tokenizer: str
    source: str


def convert_clip(state: Mapping[str, Tensor], folder: HubFolder) -> Converted:
    """Sizes are the config's, and every tensor must have its shape. The scale of the loss is
    dropped. Raises CheckpointRefused naming what is missing, extra, misshapen or not supported, and
    NonFiniteError for NaN or infinity."""
    content = _towers(folder, "clip")
    content["embedding"] = folder.config.get("projection_dim", 512)
    _require_ends(folder, content, ("bos_token", "eos_token"))
    return _renamed(state, CLIP, content, folder.source)


def convert_siglip(state: Mapping[str, Tensor], folder: HubFolder) -> Converted:
    """SigLIP and SigLIP 2 of fixed resolution. Raises as ``convert_clip``."""
    content = _towers(folder, "siglip")
    content["padding"] = _special(folder, "pad_token")
    kept = str(folder.tokenizer_config.get("tokenizer_class")).startswith(("Gemma", "Siglip2"))
    content["strip_punctuation"] = not kept
    _require_ends(folder, content, ("eos_token",))
    return _renamed(_split_head(unwrapped(state)), SIGLIP, content, folder.source)


def convert_phi(
    state: Mapping[str, Tensor], clip: ClipConfig, tensors: Mapping[str, Tensor], source: str
) -> Converted:
    """Textual inversion over a converted CLIP, whose config and tensors are given. Raises as
    ``convert_clip``."""
    state = unwrapped(state)
    table, hidden = KeyTable(PHI), state.get("layers.0.weight")
    inner = clip.model_dump() | {"kind": "inversion"}
    inner.pop("text_weight", None)
    width = 4 * clip.embedding if hidden is None else hidden.shape[0]
    content = inner | {"hidden": width, "pseudo_word": _pseudo_word(clip, source)}
    config = parse_config(content, source)
    phi = rename(state, table, config, source, counters={}, lacking=tensors.keys())
    return Converted(config, {**tensors, **phi.tensors}, phi.dropped)


def _towers(folder: HubFolder, kind: str) -> dict[str, Any]:
    of_text, of_vision = UNSAID[kind]
    text = {**of_text, **_part(folder.config, "text_config")}
    vision = {**of_vision, **_part(folder.config, "vision_config")}
    _require_supported(folder, kind, text, vision)
    return {
        "kind": kind,
        "vision": {
            "kind": kind,
            **{ours: vision[theirs] for ours, theirs in VISION_SIZES.items()},
            **picture_fields(folder.pictures, vision["image_size"], folder.source),
        },
        "text": {ours: text[theirs] for ours, theirs in TEXT_SIZES.items()},
        "attached": {TOKENIZER_FILE: folder.tokenizer},
    }


def _require_supported(
    folder: HubFolder, kind: str, text: Mapping[str, Any], vision: Mapping[str, Any]
) -> None:
    faults = []
    if folder.config.get("model_type") != kind:
        flexible = "; of SigLIP 2, checkpoints of fixed resolution are read, NaFlex is not"
        faults.append(
            f"model_type is {folder.config.get('model_type')!r}, expected {kind!r}"
            f"{flexible if kind == 'siglip' else ''}"
        )
    faults += [
        f"{name}.hidden_act is {part['hidden_act']!r}, known are {', '.join(get_args(Activation))}"
        for name, part in (("text_config", text), ("vision_config", vision))
        if part["hidden_act"] not in get_args(Activation)
    ]
    channels = vision.get("num_channels", CHANNELS)
    if channels != CHANNELS:
        faults.append(f"vision_config.num_channels is {channels}, expected {CHANNELS}")
    if kind == "siglip" and not vision.get("vision_use_head", True):
        faults.append("vision_config.vision_use_head is false: there is no image embedding")
    projected = text.get("projection_size") or text["hidden_size"]
    if kind == "siglip" and projected != vision["hidden_size"]:
        faults.append(f"texts are {projected} wide and images {vision['hidden_size']}")
    if faults:
        raise CheckpointRefused(
            f"not a Hugging Face {kind} model that is supported",
            item=folder.source,
            cause="; ".join(faults),
            remedy="pass the folder of a CLIPModel, or of a SiglipModel of fixed resolution",
        )


def _renamed(
    state: Mapping[str, Tensor], table: Mapping[str, str], content: dict[str, Any], source: str
) -> Converted:
    state = unwrapped(state)
    scales = tuple(key for key in SCALES if key in state)
    config = parse_config(content, source)
    counters = {
        "text_model.embeddings.position_ids": config.text.positions,
        "vision_model.embeddings.position_ids": config.vision.tokens,
    }
    weights = {key: tensor for key, tensor in state.items() if key not in scales}
    found = rename(weights, KeyTable(table), config, source, counters=counters)
    return Converted(config, found.tensors, (*found.dropped, *scales))


def _split_head(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torch's MultiheadAttention keeps three projections in one tensor."""
    split: dict[str, Tensor] = {}
    for key, tensor in state.items():
        fused = key.startswith(f"{HEAD}.attention.in_proj_") and len(tensor) % 3 == 0
        if fused:
            split |= {
                f"{key}[{name}]": part
                for name, part in zip(PROJECTIONS, tensor.chunk(3), strict=True)
            }
        else:
            split[key] = tensor
    return split


def _require_ends(folder: HubFolder, content: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Texts must be read with the first and last tokens that the model knows, and no id may be
    beyond its words: a file of another model has others."""
    ids = _tokenizer(folder)(["a photo"])[0]
    expected = {name: _special(folder, name) for name in names}
    ends = {"bos_token": ids[0], "eos_token": ids[-1]}
    faults = [
        f"a text's {name} is read as {ends[name]}, not {token}"
        for name, token in expected.items()
        if ends[name] != token
    ]
    words = content["text"]["vocabulary_size"]
    largest = FileTokenizer(folder.tokenizer).size
    if largest > words:
        faults.append(f"it has {largest} tokens, and the model {words}")
    if folder.tokenizer_config.get("padding_side", "right") != "right":
        faults.append("it pads on the left")
    if faults:
        raise _bad_tokenizer(folder.source, "; ".join(faults))


def _special(folder: HubFolder, name: str) -> int:
    """The id of a special token of ``tokenizer_config.json``."""
    token = folder.tokenizer_config.get(name)
    text = token.get("content") if isinstance(token, Mapping) else token
    found = _tokenizer(folder).id_of(text) if isinstance(text, str) else None
    if found is None:
        raise _bad_tokenizer(
            folder.source, f"tokenizer_config.json says {name} {text!r}, which it does not know"
        )
    return found


def _tokenizer(folder: HubFolder) -> FileTokenizer:
    try:
        return FileTokenizer(folder.tokenizer)
    except Exception as error:  # the library raises nothing narrower
        raise _bad_tokenizer(folder.source, f"it cannot be read: {error}") from error


def _pseudo_word(clip: ClipConfig, source: str) -> int:
    tokenizer = FileTokenizer(clip.tokenizer_json)
    word = tokenizer(["$"])[0][1:-1]
    prompt = tokenizer([TEMPLATE.replace("{}", "is red")])[0]
    if len(word) != 1 or prompt.count(word[0]) != 1:
        raise _bad_tokenizer(source, f'"$" is read as {word}, where the prompt needs one token')
    return word[0]


def _bad_tokenizer(source: str, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a tokenizer.json does not fit the model",
        item=source,
        cause=cause,
        remedy="download the folder again, whole: tokenizer.json and tokenizer_config.json of the "
        "same model",
    )


def _part(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Older configs say sizes twice, and mean the second."""
    first, second = config.get(name) or {}, config.get(f"{name}_dict") or {}
    return {**first, **second}
