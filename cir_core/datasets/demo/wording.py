"""Templated English of the demo world: two captions a query, and descriptions for pre-training."""

import re

import numpy as np

from cir_core.datasets.demo.garments import (
    CATEGORIES,
    COLOURS,
    LENGTHS,
    NECKS,
    PATTERNS,
    PRINTS,
    SLEEVES,
    Garment,
    differences,
)

_NOUNS = {
    "dress": ("dress", "gown"),
    "shirt": ("shirt", "button shirt"),
    "toptee": ("top", "tee", "blouse"),
}
_PATTERN_ADJECTIVES = {
    "solid": ("solid", "plain"),
    "striped": ("striped", "horizontally striped"),
    "vertical": ("vertically striped", "pinstriped"),
    "checked": ("checked", "checkered"),
    "dotted": ("dotted", "spotted"),
    "diagonal": ("diagonally striped", "slanted striped"),
}
_PATTERN_NOUNS = {
    "striped": ("stripes", "horizontal stripes"),
    "vertical": ("vertical stripes", "pinstripes"),
    "checked": ("checks", "a checkered pattern"),
    "dotted": ("dots", "spots"),
    "diagonal": ("diagonal stripes", "slanted stripes"),
}
_SLEEVE_NOUNS = {
    "sleeveless": ("no sleeves", "bare arms"),
    "short": ("short sleeves", "cap sleeves"),
    "elbow": ("elbow sleeves", "half sleeves", "sleeves to the elbow"),
    "long": ("long sleeves", "full sleeves"),
}
_NECK_NOUNS = {
    "round": ("a round neck", "a scoop neck", "a crew neckline"),
    "v": ("a v neck", "a v neckline", "a plunging neck"),
    "square": ("a square neck", "a square neckline"),
    "high": ("a high neck", "a turtleneck", "a high collar"),
}
_LENGTH_ADJECTIVES = {
    "cropped": ("cropped", "very short"),
    "regular": ("of regular length", "of medium length"),
    "long": ("long", "of long length"),
}
_PRINT_NOUNS = {
    "none": ("no print", "no logo", "nothing on the chest"),
    **{
        name: (f"a {name} print", f"a {name} on the chest", f"a {name} logo")
        for name in PRINTS
        if name != "none"
    },
}
_GREY = ("grey", "gray")
_JOINTS = (" and ", ", ", " and also ", " but ")


class _Voice:
    """One speaker: picks wordings by the generator it holds."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def pick(self, choices: tuple[str, ...]) -> str:
        return choices[self._rng.integers(len(choices))]

    def colour(self, name: str) -> str:
        return self.pick(_GREY) if name == "grey" else name

    def has(self, thing: str) -> str:
        return self.pick(("has {}", "with {}", "it has {}")).format(thing)

    def is_(self, quality: str) -> str:
        return self.pick(("is {}", "it is {}")).format(quality)


def modification_captions(
    before: Garment, after: Garment, rng: np.random.Generator
) -> tuple[str, str]:
    """Two captions whose union names every changed attribute by its new value.

    Each changed attribute is told by the first, the second, or both. Raises ValueError when
    nothing differs: there would be nothing to say.
    """
    changed = differences(before, after)
    if not changed:
        raise ValueError("the two garments are the same")
    changed = [str(name) for name in rng.permutation(changed)]
    if len(changed) == 1:
        told_first, told_second = changed, changed
    else:
        cut = int(rng.integers(1, len(changed)))
        told_first, told_second = changed[:cut], changed[cut:]
        if rng.random() < 0.2:
            told_second = [*told_second, changed[0]]
    voice = _Voice(rng)
    return _caption(told_first, before, after, voice), _caption(told_second, before, after, voice)


def description(garment: Garment, rng: np.random.Generator) -> str:
    """One sentence that tells most attributes of the garment, in varying order and wording."""
    voice = _Voice(rng)
    told = [str(name) for name in rng.permutation(["pattern", "sleeve", "neck", "length", "print"])]
    told = told[: int(rng.integers(3, 6))]
    noun = voice.pick(_NOUNS[garment.category])
    clauses = [_state(name, garment, voice) for name in told]
    opening = f"a {voice.colour(garment.colour)} {noun}"
    return ", ".join([opening, *clauses[:-1]]) + f" and {clauses[-1]}"


def catalogue_entry(garment: Garment) -> str:
    """Every attribute by its one name and in one order, as a shop's database lists them. In a
    sentence of many wordings a hidden word may be any attribute's; here its place says which."""
    return (
        f"{garment.category} color {garment.colour} {garment.pattern} "
        f"{garment.second_colour or 'no'} sleeves {garment.sleeve} neck {garment.neck} "
        f"length {garment.length} print {garment.print}"
    )


def vocabulary() -> list[str]:
    """Every word the templates can say, plus single letters and digits so that any other word
    can still be spelled out; BERT's special tokens first. Sorted, so that ids are stable."""
    tables = (
        _NOUNS,
        _PATTERN_ADJECTIVES,
        _PATTERN_NOUNS,
        _SLEEVE_NOUNS,
        _NECK_NOUNS,
        _LENGTH_ADJECTIVES,
        _PRINT_NOUNS,
    )
    phrases = [phrase for table in tables for choices in table.values() for phrase in choices]
    frames = "it is has with a and also but instead of in color main second the than not same"
    names = (*CATEGORIES, *COLOURS, *_GREY, *PATTERNS, *SLEEVES, *NECKS, *LENGTHS, *PRINTS)
    words = set(re.findall(r"[a-z]+", " ".join([*phrases, frames, *names])))
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words |= set(characters) | {"##" + c for c in characters} | set(".,?!'-")
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]


def _caption(names: list[str], before: Garment, after: Garment, voice: _Voice) -> str:
    if "pattern" in names:  # "has red stripes" tells the second colour too; a solid one has none
        names = [name for name in names if name != "second_colour"]
    clauses = [_tell_change(name, before, after, voice) for name in names]
    text = clauses[0]
    for clause in clauses[1:]:
        text += voice.pick(_JOINTS) + clause
    return text


def _tell_change(name: str, before: Garment, after: Garment, voice: _Voice) -> str:
    if name == "colour":
        new, old = voice.colour(after.colour), voice.colour(before.colour)
        frames = ("is {n}", "is {n} in color", "is {n} instead of {o}", "is not {o} but {n}")
        return voice.pick(frames).format(n=new, o=old)
    return _state(name, after, voice) + voice.pick(("", "", "", " instead"))


def _state(name: str, garment: Garment, voice: _Voice) -> str:
    """A clause that gives the attribute's value."""
    match name:
        case "pattern" | "second_colour":
            return _state_pattern(garment, voice)
        case "sleeve":
            return voice.has(voice.pick(_SLEEVE_NOUNS[garment.sleeve]))
        case "neck":
            return voice.has(voice.pick(_NECK_NOUNS[garment.neck]))
        case "length":
            return voice.is_(voice.pick(_LENGTH_ADJECTIVES[garment.length]))
        case "print":
            return voice.has(voice.pick(_PRINT_NOUNS[garment.print]))
        case _:
            raise ValueError(f"no wording for the attribute {name!r}")


def _state_pattern(garment: Garment, voice: _Voice) -> str:
    if garment.pattern == "solid":
        return voice.is_(voice.pick(_PATTERN_ADJECTIVES["solid"]))
    second = voice.colour(garment.second_colour)
    if voice.pick(("noun", "adjective")) == "noun":
        noun = voice.pick(_PATTERN_NOUNS[garment.pattern])
        if noun.startswith("a "):
            return voice.has(f"a {second} {noun[2:]}")
        return voice.has(f"{second} {noun}")
    adjective = voice.pick(_PATTERN_ADJECTIVES[garment.pattern])
    return voice.is_(f"{adjective} with {second}")
