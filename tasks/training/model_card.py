"""The model card beside a checkpoint: data, recipe, metrics, hashes."""

from collections.abc import Mapping
from pathlib import Path

from cir_core.training.recipes import Recipe
from storage.atomic import commit_text
from tasks.training.ledger import Spent
from tasks.training.scores import Scores

CARD_FILE = "README.md"


def card_text(
    about: str,
    origin: Mapping[str, str],
    recipe: Recipe,
    step: int,
    scores: Scores,
    accuracy: float | None,
    spent: Spent,
    digest: str,
) -> str:
    """``about`` tells of the data in a sentence; ``accuracy`` is that of training since the last
    validation."""
    lines = [
        "# Model card",
        "",
        about,
        "",
        f"- step: {step}",
        f"- spent so far: {spent}",
        f"- model sha256 (config and weights): `{digest}`",
        *(f"- {name}: `{value}`" for name, value in origin.items()),
        "",
        "## Recipe",
        "",
        *(f"- {name}: {value}" for name, value in recipe.model_dump(mode="json").items()),
        "",
        f"## On the {scores.queries} selection queries (kept out of training)",
        "",
        *(
            [
                f"- {name}: {score.value:.4f} (95 % {score.low:.4f} to {score.high:.4f})"
                for name, score in scores.metrics.items()
            ]
            or ["not validated"]
        ),
        *(
            f"- gain, {name}: {score.value:+.4f} (95 % {score.low:+.4f} to {score.high:+.4f})"
            for name, score in scores.gains.items()
        ),
        *([] if accuracy is None else [f"- accuracy in training: {accuracy:.4f}"]),
    ]
    return "\n".join(lines) + "\n"


def add_to_card(folder: Path, text: str) -> None:
    """A further paragraph; one that is there already is not repeated."""
    card = (folder / CARD_FILE).read_text(encoding="utf-8")
    if text not in card:
        commit_text(folder / CARD_FILE, f"{card}\n{text}\n")
