"""A copy of a dataset, judged: what was read of it, as findings beside what should be there."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from cir_core.datasets.about import About
from cir_core.datasets.row_faults import shown
from cir_core.doctor.checkup import (
    ambiguous_queries,
    compare_counts,
    evaluable,
    in_several_categories,
    misnamed,
    misplaced,
    outside_gallery,
    same_bytes,
    several_files,
)
from cir_core.doctor.findings import Finding, State, counted, share
from cir_core.errors import REMEDIES
from cir_core.ports import RetrieverConfig
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Query, Split

COMPARE = "compare the annotation files with the published ones"


def judge_counts(about: About, split: Split, benchmark: Benchmark) -> list[Finding]:
    """Queries and gallery of each category; a note where no number is published."""
    findings = []
    for one in compare_counts(benchmark, about.counts.get(split)):
        check = f"{one.category}: {one.what}"
        if one.expected is None:
            findings.append(Finding(split, check, "note", one.found))
        elif one.expected == one.found:
            findings.append(Finding(split, check, "ok", one.found, one.expected))
        else:
            findings.append(
                Finding(split, check, "problem", one.found, one.expected, remedy=COMPARE)
            )
    return findings


def judge_queries(split: Split, benchmark: Benchmark) -> list[Finding]:
    """Only what is unusual. A target outside the gallery can never be found; a reference outside
    is only never searched; queries that ask the same are in the published files too."""
    references, targets = outside_gallery(benchmark)
    alike = [
        f"{' and '.join(_ids(group))}: {group[0].text!r}"
        for group in ambiguous_queries(benchmark.queries)
    ]
    several = [
        f"{image}: {', '.join(categories)}"
        for image, categories in in_several_categories(benchmark).items()
    ]
    findings = [
        counted(split, "targets not in the gallery", "problem", _ids(targets), COMPARE),
        counted(split, "references not in the gallery", "note", _ids(references)),
        counted(split, "groups that ask the same but want other images", "note", alike),
        counted(split, "images in several categories", "note", several),
    ]
    return [
        *(finding for finding in findings if finding.found),
        *(Finding(split, "to know", "note", note) for note in benchmark.notes),
    ]


def judge_texts(split: Split, queries: Sequence[Query], config: RetrieverConfig) -> list[Finding]:
    """Only what is unusual for a model's words and positions: texts that it cannot read, each query
    once, and texts that it reads without understanding a word."""
    tokenizer = config.tokenizer()
    texts = [query.text for query in queries]
    strange = tokenizer.without_known_words(texts)
    lengths = [
        max(len(first), len(second))
        for first, second in zip(
            tokenizer(texts), tokenizer([query.other_text for query in queries]), strict=True
        )
    ]
    too_long = [
        f"{query.query_id}: {length} tokens"
        for query, length in zip(queries, lengths, strict=True)
        if length > config.positions
    ]
    foreign = [
        f"{query.query_id}: {shown(query.text)}"
        for query, is_strange in zip(queries, strange, strict=True)
        if is_strange
    ]
    told = f"shorten them: the model reads {config.positions} tokens, and texts are never cut"
    findings = [
        counted(split, "texts too long for the model", "problem", too_long, told),
        counted(split, "texts without a word that the model knows", "note", foreign),
    ]
    return [finding for finding in findings if finding.found]


def judge_images(
    about: About,
    benchmarks: Mapping[Split, Benchmark],
    hashes: Mapping[ImageId, str],
    problems: Sequence[Mapping[str, str]],
    names: Callable[[str], Collection[str]],
) -> list[Finding]:
    """``hashes`` of the usable images, ``problems`` of the others (rows of that table); ``names``
    lists a folder. The number of different ids is compared where all splits were read."""
    files = {image: places for one in benchmarks.values() for image, places in one.files.items()}
    findings = [share("images", "usable", len(hashes), len(files))]
    if about.distinct_images and benchmarks.keys() >= about.counts.keys():
        state: State = "ok" if len(files) == about.distinct_images else "problem"
        ids = Finding("images", "different ids", state, len(files), about.distinct_images)
        findings.insert(0, ids)
    lost = {
        row["item"]: files[ImageId(row["item"])] for row in problems if row["kind"] == "missing"
    }
    renamed = misnamed(lost, names)
    moved = misplaced({image: lost[image] for image in lost.keys() - renamed.keys()}, names)
    gone = len(lost) > len(renamed) + len(moved)
    findings += _judge_problems(about, problems, gone=gone)
    unusual = [
        counted(
            "images",
            "missing ones under another case or extension",
            "problem",
            _instead(renamed, lost),
            "rename them",
        ),
        counted(
            "images",
            "missing ones in another folder",
            "problem",
            _instead(moved, lost),
            "move or link them to where they are expected",
        ),
        counted(
            "images",
            "with two files, the first counts",
            "note",
            (
                f"{image}: {', not '.join(there)}"
                for image, there in several_files(files, names).items()
            ),
        ),
        counted("images", "groups of the same bytes", "note", map(", ".join, same_bytes(hashes))),
    ]
    return findings + [finding for finding in unusual if finding.found]


def judge_protocols(
    split: Split,
    protocols: Iterable[Protocol],
    parse: Callable[[Protocol], Benchmark],
    usable: Collection[ImageId],
) -> list[Finding]:
    """How much of each can be evaluated, in queries and in gallery members. Protocols that differ
    in their texts alone lose the same, and share two rows."""
    alike: dict[tuple[str, bool], list[Protocol]] = defaultdict(list)
    for protocol in protocols:
        alike[protocol.gallery, protocol.removes_reference].append(protocol)
    findings = []
    for first, *others in alike.values():
        part = evaluable(parse(first), first, usable)
        name = f"{first.name} (+ {len(others)} alike)" if others else first.name
        findings += [
            share(f"{split}: evaluable", f"{name}: queries", part.usable_queries, part.queries),
            share(f"{split}: evaluable", f"{name}: gallery", part.usable_members, part.members),
        ]
    return findings


def _instead(found: Mapping[str, str], lost: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{found[image]} for {places[0]}" for image, places in lost.items() if image in found]


def _judge_problems(
    about: About, problems: Sequence[Mapping[str, str]], *, gone: bool
) -> list[Finding]:
    """``gone``: some of the missing images are nowhere near."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for row in problems:
        told = row["item"] if row["kind"] == "missing" else row["message"]
        by_kind[row["kind"]].append(told)
    obtain = f"{about.images}; see {about.source_url}" if gone else "they lie elsewhere: see below"
    return [
        counted("images", kind, "problem", told, obtain if kind == "missing" else REMEDIES[kind])
        for kind, told in by_kind.items()
    ]


def _ids(queries: Iterable[Query]) -> list[str]:
    return [query.query_id for query in queries]
