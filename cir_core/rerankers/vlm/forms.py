"""What a vision-language model is asked, as messages, before its chat template makes a prompt of
them."""

from typing import Any, Literal, Self

from pydantic import model_validator

from cir_core.layers.config import Frozen

TEXT = "{text}"
"""In a form: where a query's modification text goes."""


class Part(Frozen):
    """Words, or one of the two pictures."""

    type: Literal["text", "image"]
    text: str = ""
    of: Literal["reference", "candidate", ""] = ""

    unsaid_by_default = ("text", "of")


class Message(Frozen):
    role: Literal["system", "user"]
    content: tuple[Part, ...]


class Form(Frozen):
    """``yes`` and ``no`` are the words whose logits are compared."""

    messages: tuple[Message, ...]
    yes: str
    no: str

    @model_validator(mode="after")
    def _asks_of_both(self) -> Self:
        if sorted(self.pictures) != ["candidate", "reference"]:
            raise ValueError("a form shows the reference and the candidate, each once")
        if sum(part.text.count(TEXT) for part in self._parts) != 1:
            raise ValueError(f"a form has one place for the text: {TEXT}")
        return self

    @property
    def pictures(self) -> tuple[str, ...]:
        """Whose they are, in their order."""
        return tuple(part.of for part in self._parts if part.type == "image")

    @property
    def _parts(self) -> list[Part]:
        return [part for message in self.messages for part in message.content]

    def filled(self, text: str) -> list[dict[str, Any]]:
        """As a chat template takes messages."""
        return [
            {
                "role": message.role,
                "content": [
                    {"type": "image"}
                    if part.type == "image"
                    else {"type": "text", "text": part.text.replace(TEXT, text)}
                    for part in message.content
                ],
            }
            for message in self.messages
        ]


def _words(text: str) -> Part:
    return Part(type="text", text=text)


REFERENCE = Part(type="image", of="reference")
CANDIDATE = Part(type="image", of="candidate")

INSTRUCTION = (
    "Retrieve the image that shows what the query's image would show, changed as its text says."
)

QWEN3 = Form(
    messages=(
        Message(
            role="system",
            content=(
                _words(
                    "Judge whether the Document meets the requirements based on the Query and the "
                    'Instruct provided. Note that the answer can only be "yes" or "no".'
                ),
            ),
        ),
        Message(
            role="user",
            content=(
                _words(f"<Instruct>: {INSTRUCTION}"),
                *(_words("<Query>:"), REFERENCE, _words(TEXT)),
                *(_words("\n<Document>:"), CANDIDATE),
            ),
        ),
    ),
    yes="yes",
    no="no",
)
"""Of Qwen3-VL-Reranker, as its own code asks, with an instruction for this task."""

LAMRA = Form(
    messages=(
        Message(
            role="user",
            content=(
                _words(
                    "I will provide you with a query and a candidate. Please evaluate whether the "
                    "candidate meets the requirements of the query. If it does, respond with "
                    "'Yes'; if it doesn't, respond with 'No'. Query: "
                ),
                *(REFERENCE, _words(f"{TEXT}, Candidate: "), CANDIDATE),
            ),
        ),
    ),
    yes="Yes",
    no="No",
)
"""Of LamRA-Rank's pointwise training (Qwen2-VL), as its paper prints it."""

CANDIDATE_FIRST = Form(
    messages=(
        Message(
            role="user",
            content=(
                CANDIDATE,
                _words(
                    "Assert the relevance of the previous image document to the following query, "
                    "answer True or False. The query is: "
                ),
                *(REFERENCE, _words(f"changed so: {TEXT}")),
            ),
        ),
    ),
    yes="True",
    no="False",
)
"""After MonoQwen2-VL, which was trained on a text as the query, not on a picture and a text."""

FORMS = {"qwen3-vl-reranker": QWEN3, "lamra": LAMRA, "candidate-first": CANDIDATE_FIRST}
