"""The container files, as far as that can be seen without building them."""

import re

from tests.support.documents import ROOT

FILE = (ROOT / "containers" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
ALLOWED = re.findall(r"^!(\S+)$", (ROOT / "containers/Dockerfile.dockerignore").read_text(), re.M)


def test_what_is_copied_is_there_and_let_in() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.*)$", FILE, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert sorted(copied) == sorted(ALLOWED)
    assert all((ROOT / name).exists() for name in copied)


def test_everything_is_installed_from_a_lock_that_is_there() -> None:
    named = re.findall(r"--requirement (\S+)", FILE)
    assert all((ROOT / name).is_file() for name in named)
    installs = re.findall(r"pip (?:--python \S+ )?install (\S+)(.*?)(?:&&|$)", FILE, re.MULTILINE)
    assert len(installs) == 1 + 3 + 2
    for options, what in installs:
        assert options == "${INSTALL}" or what.split() == ["--no-index", "/wheels/*.whl"]
    assert re.search(r'INSTALL="[^"]*--require-hashes[^"]*"', FILE)


def test_nobody_in_particular_runs_the_console_script() -> None:
    stages = re.split(r"^FROM ", FILE, flags=re.MULTILINE)
    last = {re.search(r"AS (\S+)", one)[1]: one for one in stages[1:]}  # type: ignore[index]
    assert 'USER 10001:10001\nWORKDIR /tmp\nENTRYPOINT ["cir-pipeline"]' in last["run"]
    assert all(
        one.startswith("run AS") and "USER" not in one for one in (last["cpu"], last["cuda"])
    )
