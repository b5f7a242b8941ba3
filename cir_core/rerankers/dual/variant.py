"""What of a query enters stage 2, and how: the paper's dual encoder, and what it is compared with.

A *branch* is a sequence of states with a self-attention of its own; a *look* is a cross-attention
of one branch. What the looks of a layer see is merged, and added to every branch.

=====================  =================  =====================================
encoder, reference     branches begin as  looks
=====================  =================  =====================================
dual, z_t (paper)      z_t; the text      each branch at the candidate
dual, image            the text, twice    one at the reference, one at the candidate
single, z_t            the text           at z_t, and at the candidate
single, image          the text           at the reference, and at the candidate
single, none           the text           at the candidate
=====================  =================  =====================================
"""

from typing import Literal, NamedTuple, Self

from pydantic import model_validator

from cir_core.layers.config import Frozen

Beginning = Literal["z_t", "text"]
Context = Literal["candidate", "reference", "z_t"]


class Look(NamedTuple):
    """A cross-attention: which branch looks, and at what. ``reference`` are its image tokens."""

    branch: int
    at: Context


class Variant(Frozen):
    """``encoder``: two branches or one, which has the same looks, widths and depth, so that what
    the second branch adds is its own states alone. ``reference``: what stands for the reference
    image. ``text``: without it, every text is read as the empty one. ``merging``: what the looks
    see is merged in every layer, or branches meet in the score head alone."""

    encoder: Literal["dual", "single"] = "dual"
    reference: Literal["z_t", "image", "none"] = "z_t"
    text: bool = True
    merging: Literal["layers", "head"] = "layers"

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if self.encoder == "dual" and self.reference == "none":
            raise ValueError("without a reference nothing is left for a second branch: say single")
        if self.encoder == "single" and self.merging == "head":
            raise ValueError("a single encoder has no branches that could meet in the head")
        if not self.text and self.reference == "none":
            raise ValueError("without text and without a reference nothing is left of a query")
        if not self.text and self.reference == "z_t":
            raise ValueError("z_t holds the text: without text, reference is the image")
        return self

    @property
    def beginnings(self) -> tuple[Beginning, ...]:
        """What each branch begins as."""
        if self.encoder == "single":
            return ("text",)
        return ("z_t" if self.reference == "z_t" else "text", "text")

    @property
    def looks(self) -> tuple[Look, ...]:
        """Those at candidates come last."""
        last = len(self.beginnings) - 1
        candidate = Look(last, "candidate")
        if self.reference == "none":
            return (candidate,)
        if self.reference == "image":
            return (Look(0, "reference"), candidate)
        return (Look(0, "candidate" if self.encoder == "dual" else "z_t"), candidate)

    @property
    def reads_z_t(self) -> bool:
        return self.reference == "z_t"

    @property
    def merges(self) -> bool:
        """Whether layers merge what several looks see."""
        return len(self.looks) > 1 and self.merging == "layers"


PAPERS = Variant()
