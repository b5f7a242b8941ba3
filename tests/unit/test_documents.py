"""The documents name what is there: files, headings, modules, commands and their options."""

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from flows.doors.cli.app import COMMANDS
from tests.support.documents import ROOT, blocks, commands, prose

DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TOP = ("benchmarks", "cir_core", "docs", "flows", "storage", "tasks", "tests")
TRACKED = [
    path for top in TOP for path in (ROOT / top).rglob("*") if "__pycache__" not in path.parts
]

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def anchors(document: Path) -> set[str]:
    """The headings, as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.*)$", prose(document.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text("utf-8"))):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        aim = (document.parent / name).resolve() if name else document
        assert aim.exists(), link
        assert not anchor or anchor in anchors(aim), link


def test_the_readme_leads_to_every_document() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert {str(path.relative_to(ROOT)) for path in DOCUMENTS[1:]} <= set(links)


def named(text: str) -> Iterator[list[str]]:
    """What stands between backticks, line by line, without the files that a guide invents."""
    invented = {block.file for block in blocks(text)}
    for line in prose(text).splitlines():
        yield [name for name in re.findall(r"`([^`]+)`", line) if name not in invented]


@every_document
def test_every_file_and_module_that_is_named_is_there(document: Path) -> None:
    for line in named(document.read_text("utf-8")):
        beside = None  # a bare name is that of a file beside the one named before it
        for name in line:
            if re.fullmatch(rf"(?:{'|'.join(TOP)})/[\w./*-]*", name):
                assert list(ROOT.glob(name.rstrip("/"))), name
                beside = ROOT / name if name.endswith("/") else (ROOT / name).parent
            elif re.fullmatch(r"[\w/]+\.(?:py|sql)", name):
                found = [path for path in TRACKED if path.match(name)]
                assert (beside / name in found) if beside else found, name
            elif re.fullmatch(r"(?:cir_core|flows|storage|tasks)(?:\.\w+)+", name):
                assert find_spec(name), name


@every_document
def test_every_command_that_is_shown_can_be_given(document: Path) -> None:
    for words in commands(document.read_text("utf-8")):
        called = next(one for one in (" ".join(words[:2]), words[0]) if one in COMMANDS)
        given = words[len(called.split()) :]
        COMMANDS[called].built(called).make_context(called, given)


def test_a_wrong_option_would_be_noticed(tmp_path: Path) -> None:
    document = tmp_path / "wrong.md"
    document.write_text("```sh\n.venv/bin/cir-pipeline run \\\n    --datset fiq  # so\n```\n")
    with pytest.raises(Exception, match="No such option: --datset"):
        test_every_command_that_is_shown_can_be_given(document)
