"""What a store holds, whether it is whole, and what nobody needs."""

from collections.abc import Sequence

from flows.views.quantities import counted, prefixed
from flows.views.streams import put
from flows.views.tables import Column, Console, print_table
from storage.garbage import Waste
from tasks.upkeep.listing import ListedArtifact, Usage
from tasks.upkeep.verify import Verified

DIGITS = 12
"""Of a fingerprint: as many as of a run's id, whose evaluation's it begins."""


def print_verified(verified: Verified, console: Console) -> None:
    """What is damaged, what is worth knowing, and a line for all."""
    if verified.faults:
        faults = [(fault.item, (fault.damage, "bold red")) for fault in verified.faults]
        print_table(console, [Column("damaged"), Column("how")], faults)
    if verified.notes:
        notes = [[note.item, note.told] for note in verified.notes]
        print_table(console, [Column("not damaged"), Column("to know")], notes)
    told = f"{counted(len(verified.faults))} damaged" if verified.faults else "whole"
    put(f"{told}: {counted(verified.files)} files, {size(verified.bytes)} compared")


def print_artifacts(listed: Sequence[ListedArtifact], console: Console) -> None:
    """A row each."""
    columns = [
        Column("stage", whole=True),
        Column("id", whole=True),
        *(Column(name, right=True) for name in ("parts", "rows", "size")),
        Column("state"),
        Column("needed by"),
    ]
    rows = [
        [
            *(one.stage, one.fingerprint[:DIGITS], counted(one.parts), counted(one.rows)),
            *(size(one.bytes), one.state, ", ".join(one.runs)),
        ]
        for one in listed
    ]
    print_table(console, columns, rows)


def print_usage(usage: Usage, console: Console) -> None:
    """By stage, beside artifacts, and by run."""
    numbers = [Column("artifacts", right=True), Column("size", right=True)]
    stages = [[one.stage, counted(one.artifacts), size(one.bytes)] for one in usage.stages]
    beside = [[name, "", size(taken)] for name, taken in usage.beside.items()]
    print_table(console, [Column("stage, or beside"), *numbers], stages + beside)
    if usage.runs:
        numbers = [Column("alone", right=True), Column("shared", right=True)]
        rows = [[one.run_id, one.name or "", size(one.own), size(one.shared)] for one in usage.runs]
        print_table(console, [Column("run", whole=True), Column("name"), *numbers], rows)
    put(
        f"{size(usage.bytes)} in all, {size(usage.unneeded)} of it in artifacts that no finished "
        f"run needs; {size(usage.free)} are free"
    )


def print_waste(waste: Sequence[Waste], console: Console, *, is_removed: bool) -> None:
    """A row for what goes together."""
    if waste:
        columns = [Column("item"), Column("size", right=True), Column("why")]
        print_table(console, columns, [[one.item, size(one.bytes), one.why] for one in waste])
    verb = "removed" if is_removed else "would be removed"
    put(f"{size(sum(one.bytes for one in waste))} {verb}")


def size(number: int) -> str:
    """Bytes, for eyes."""
    return f"{prefixed(number)}B"
