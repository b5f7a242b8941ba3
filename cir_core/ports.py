"""What every kind of model promises: a retriever finds candidates, a reranker opens a scorer of
pairs, and both see images through an encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor

from cir_core.layers.preprocess import Preprocess
from cir_core.types import Precision


class Tokenizer(Protocol):
    """Texts as a model reads them."""

    def __call__(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each, never truncated and never none."""

    def without_known_words(self, texts: list[str]) -> list[bool]:
        """Whether a text has words, and the vocabulary none of them."""


@dataclass(frozen=True)
class Widths:
    """How many numbers a model leaves in the store: of an embedding, of a token of z_t, and of all
    states of an image."""

    embedding: int
    z_t: int
    image: int


class Reading(Protocol):
    """How texts are read. ``positions``: the longest, in tokens."""

    @property
    def vocabulary(self) -> str:
        """The words that token ids mean: two of a name agree in every id."""

    @property
    def positions(self) -> int: ...

    def tokenizer(self) -> Tokenizer: ...


class RetrieverConfig(Reading, Protocol):
    """What ``config.json`` tells of a retriever. ``pictures``: as its encoder's."""

    @property
    def kind(self) -> str: ...

    @property
    def embedding(self) -> int: ...

    @property
    def pictures(self) -> Preprocess: ...

    @property
    def widths(self) -> Widths: ...

    def seeing_flops(self) -> int:
        """Of one image."""

    def asking_flops(self, lengths: Int[np.ndarray, " query"]) -> int:
        """Of queries of these lengths in tokens, their references seen."""


class ImageEncoder(Protocol):
    """Images to their states, which retriever and reranker may share."""

    @property
    def pictures(self) -> Preprocess:
        """How pictures become its input."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one image's states."""

    @property
    def device(self) -> torch.device: ...

    @property
    def digest(self) -> str:
        """sha256 of its sizes and weights: what states depend on."""

    @property
    def precision(self) -> Precision:
        """In which it computes: fp32, but for one that was ``cast``."""

    def see(self, pixels: UInt8[Tensor, "image height width 3"]) -> Float[Tensor, "image ..."]:
        """The states of each image, independent of what else is in the batch; in fp32, or as the
        precision has them."""

    def cast(self, precision: Precision) -> Self:
        """Computes so from now on, and holds its weights so alone; ``digest`` stays. Asked before
        it is moved to a device, of a family that has this precision."""

    def differing(self, other: "ImageEncoder") -> list[str]:
        """What another encoder has otherwise, by name: tensors, or sizes; none of the same."""

    def to(self, device: str | torch.device) -> Self: ...


class Asked(NamedTuple):
    """Queries as stage 1 understands them; ``z_t`` are their token features, where it has any."""

    embeddings: Float[Tensor, "query embedding"]
    z_t: Float[Tensor, "query token width"] | None


class Retriever(Protocol):
    """Stage 1. Embeddings are of unit length and in fp32, and their product is the score; states
    are taken in any precision."""

    @property
    def config(self) -> RetrieverConfig: ...

    @property
    def encoder(self) -> ImageEncoder: ...

    def embed(self, states: Float[Tensor, "image ..."]) -> Float[Tensor, "image embedding"]: ...

    def ask(
        self,
        token_ids: Sequence[Sequence[int]],
        references: Float[Tensor, "query ..."],
    ) -> Asked:
        """Each query by its text and its reference's states; what is beyond a text's length in
        ``z_t`` holds no meaning."""

    def cast(self, precision: Precision) -> Self:
        """Reads texts, and what they change of references, so from now on, and holds the weights of
        that so alone. Images are embedded in fp32 whatever it is; the encoder is cast by itself."""

    def to(self, device: str | torch.device) -> Self: ...


@runtime_checkable
class Weighing(Protocol):
    """The config of a retriever whose query is a weighted sum of its image and its text: the text's
    share, unless a run says another."""

    @property
    def text_weight(self) -> float: ...


@runtime_checkable
class Weighed(Protocol):
    """Such a retriever."""

    def weighed(self, text_weight: float) -> Retriever:
        """The same with another share; weights are shared."""


@runtime_checkable
class ReadsTexts(Protocol):
    """A retriever that also understands a text without a picture, as it was trained to before it
    was to compose."""

    def embed_texts(self, token_ids: Sequence[Sequence[int]]) -> Float[Tensor, "text embedding"]:
        """Of unit length, to be compared with images' embeddings; each independent of the others,
        on the model's device."""


class References(Protocol):
    """The pictures that queries refer to, as a reranker's own encoder sees them."""

    @property
    def of_query(self) -> Int[np.ndarray, " query"]:
        """Which reference each query has, by a number of its own."""

    def states(self, references: Int[np.ndarray, " some"]) -> Float[Tensor, "some ..."]:
        """Of these references, in their order, on the CPU and in fp32. Raises ImageProblem for one
        that cannot be used."""


@dataclass(frozen=True)
class FusedQueries:
    """What stage 2 needs of each query, query after query: z_t and the retriever's token ids; or,
    for a reranker that reads no z_t (its width is 0), its own token ids. ``texts`` are as they were
    asked, and ``references`` are there for a reranker that reads them."""

    z_t: Float[np.ndarray, "token width"]
    token_ids: Int[np.ndarray, " token"]
    lengths: Int[np.ndarray, " query"]
    texts: Sequence[str] = ()
    references: References | None = None

    @classmethod
    def of(
        cls,
        z_t: Sequence[Float[np.ndarray, "length width"]],
        token_ids: Sequence[Sequence[int]],
        *,
        texts: Sequence[str] = (),
        references: References | None = None,
    ) -> Self:
        """Pack what is given query by query; without z_t, it has no width."""
        lengths = np.array([len(ids) for ids in token_ids], dtype=np.int64)
        tokens = np.fromiter(chain.from_iterable(token_ids), dtype=np.int64)
        packed = np.concatenate(z_t) if len(z_t) else np.empty((len(tokens), 0), dtype=np.float32)
        return cls(packed, tokens, lengths, texts, references)


@dataclass(frozen=True)
class Load:
    """Pairs to score, image by image: how many, their tokens, and how often a token looks at one of
    its text (the squares of their lengths). Where pairs are expected, not known, numbers are
    broken."""

    pairs: Shaped[np.ndarray, " image"]
    tokens: Shaped[np.ndarray, " image"]
    looks: Shaped[np.ndarray, " image"]

    @classmethod
    def of(
        cls, lengths: Int[np.ndarray, " pair"], image_of_pair: Int[np.ndarray, " pair"], images: int
    ) -> Self:
        """Of known pairs: the length of each one's text in tokens, and its image among so many."""
        counted = (
            np.bincount(image_of_pair, weights=weights, minlength=images).astype(np.int64)
            for weights in (np.ones_like(lengths), lengths, lengths**2)
        )
        return cls(*counted)

    @property
    def sums(self) -> tuple[float, float, float]:
        """Over all images, as numbers of Python: FLOPs of hundreds of millions of published pairs
        are too many for 64 bits."""
        return self.pairs.sum().item(), self.tokens.sum().item(), self.looks.sum().item()

    def of_images(self, share: Shaped[np.ndarray, " image"]) -> Self:
        """So much of the pairs of each image; of what is chosen with 0 and 1, whole numbers."""
        return type(self)(self.pairs * share, self.tokens * share, self.looks * share)


class RerankerConfig(Reading, Protocol):
    """What ``config.json`` tells of a reranker. ``prior`` times stage 1's score is added to a
    pair's (``cir_core.ordering.with_prior``); ``pictures``: as its encoder's.

    ``state_width`` is that of the z_t that it reads. One that reads none (0) may follow any
    retriever: it sees pictures and reads texts itself. ``image_width`` is that of all states of an
    image, by its encoder. ``reads_references``: whether it asks for the states of queries'
    references.
    """

    @property
    def kind(self) -> str: ...

    @property
    def prior(self) -> float: ...

    @property
    def pictures(self) -> Preprocess: ...

    @property
    def state_width(self) -> int: ...

    @property
    def image_width(self) -> int: ...

    @property
    def reads_references(self) -> bool: ...

    def objections(self, retriever: RetrieverConfig) -> list[str]:
        """Why it cannot follow such a stage 1; none when it can."""

    def seeing_flops(self) -> int:
        """Of one image, by its own encoder."""

    def beginning_flops(self, lengths: Int[np.ndarray, " query"]) -> float:
        """Once for each query, of these lengths in tokens."""

    def scoring_flops(self, load: Load) -> float:
        """Of pairs whose queries are begun."""

    def plain_flops(self, load: Load) -> float:
        """Of the same pairs, scored one by one with nothing shared."""


class Reranker(Protocol):
    """Stage 2."""

    @property
    def config(self) -> RerankerConfig: ...

    @property
    def encoder(self) -> ImageEncoder: ...

    def open(
        self,
        queries: FusedQueries,
        *,
        device: torch.device,
        memory: int | None,
        precision: Precision,
    ) -> "Scorer":
        """Ready to score these queries, on the device. ``memory`` bounds the bytes of its work and
        changes no score. Raises UsageError for a precision that the device does not have, and
        PreflightError when memory is too small."""


class Scorer(Protocol):
    """Stage 2 and some fused queries, ready to score them against images."""

    def prepare(self, states: Float[Tensor, "image ..."]) -> Any:
        """Some images, seen in any precision, once for all of their pairs: what ``score`` takes."""

    def score(
        self,
        images: Any,
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> Float[np.ndarray, " pair"]:
        """One fp32 score a pair, in the order given; each independent of what else is in the list.

        The indices refer to the scorer's queries and to the prepared images; a pair may occur
        twice. No pairs, no scores. Raises NonFiniteError when a score is NaN or infinite.
        """


class PendingScores(Protocol):
    """What is being computed."""

    def result(self) -> Float[np.ndarray, " pair"]:
        """Waits for it. Raises as ``score``."""


@runtime_checkable
class Launching(Protocol):
    """A scorer that is told the next pairs before it has the scores of the last ones."""

    @property
    def calls_under_way(self) -> int:
        """How many to have launched: two where a GPU computes one while the host prepares the
        other; one where the scores are there when the call returns."""

    def launch(
        self,
        images: Any,
        query_of_pair: Int[np.ndarray, " pair"],
        image_of_pair: Int[np.ndarray, " pair"],
    ) -> PendingScores:
        """``score``, begun."""
