"""Whether a worker of a cluster can do a run's work, before it has any."""

import pickle
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic

from cir_core.errors import PreflightError
from flows.engines.library import SECONDS_TO_START, Distant, Gone
from storage.store import Store
from tasks.child import Lost
from tasks.looking import LOOK, Question, Seen, made_with


@dataclass(frozen=True)
class Needs:
    """Of a run: its store, the files and folders that are there on this machine, and whether it
    computes on GPUs."""

    store: Store
    files: tuple[Path, ...]
    on_gpu: bool

    @cached_property
    def made_with(self) -> dict[str, str]:
        """As here."""
        return made_with()

    @contextmanager
    def asked(self) -> Iterator[Question]:
        """What a worker is asked; meanwhile the store has a name that no other store has."""
        text = secrets.token_hex(16)
        name = f"locks/seen-{text}"
        self.store.put_text(name, text)
        try:
            yield Question(Path.cwd(), self.store, name, text, self.files, self.on_gpu)
        finally:
            self.store.remove(name)


def look_at(agent: Distant, place: str, needs: Needs) -> Seen:
    """What a worker sees. Raises PreflightError for one that has other versions, does not see what
    is needed, has no GPU, or does not answer."""
    with needs.asked() as question:
        try:
            seen = _answer(agent, question)
        except Gone as gone:
            raise PreflightError(
                "a worker of the cluster does not answer",
                item=place,
                cause=str(gone),
                remedy="look at its log, and start it again",
            ) from gone
    _require_versions(place, seen, needs.made_with)
    if seen.unseen:
        raise PreflightError(
            "a worker of the cluster does not have what this run needs",
            item="\n".join(f"{place} on {seen.host}: {path}" for path in seen.unseen),
            cause="it has nothing there, another store of that name, or may not write it",
            remedy="give all machines the same store, models and data under the same paths",
        )
    if needs.on_gpu and seen.gpu is None:
        raise PreflightError(
            "a worker of the cluster has no GPU",
            item=f"{place} on {seen.host}",
            cause="this run computes on GPUs, and a CPU sums in another order",
            remedy="start it with a GPU, or pass --device cpu for all",
        )
    return seen


def _answer(agent: Distant, question: Question) -> Seen:
    agent.begin(LOOK, pickle.dumps(question), {})
    limit = monotonic() + SECONDS_TO_START
    while monotonic() < limit:
        for word in agent.hear():
            said = pickle.loads(word)
            if isinstance(said, Seen):
                return said
            if isinstance(said, Lost):
                raise Gone(said.fate)
    raise Gone(f"nothing within {SECONDS_TO_START:.0f} s")


def _require_versions(place: str, seen: Seen, here: Mapping[str, str]) -> None:
    others = {name: one for name, one in seen.made_with.items() if one != here.get(name)}
    if others:
        raise PreflightError(
            "a worker of the cluster has other versions, which may give other numbers",
            item=f"{place} on {seen.host}",
            cause=", ".join(f"{name} {one}, not {here.get(name)}" for name, one in others.items()),
            remedy="install the same on all machines, by constraints.txt",
        )


def require_own_gpus(workers: Mapping[str, Seen]) -> None:
    """Raises PreflightError where two have the same one."""
    users = dict[tuple[str, str], str]()
    for place, seen in workers.items():
        if seen.gpu is None:
            continue
        other = users.setdefault((seen.host, seen.gpu), place)
        if other != place:
            raise PreflightError(
                "two workers of the cluster have the same GPU",
                item=f"{other} and {place} on {seen.host}: {seen.gpu}",
                cause="each takes the first that it may use",
                remedy="start each with a GPU of its own in CUDA_VISIBLE_DEVICES",
            )
