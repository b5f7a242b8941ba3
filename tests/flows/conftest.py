"""What several flow tests share.

What is trained once is copied for each test, which may change its copy or train on from there.
"""

import shutil
from pathlib import Path

import pytest

from tests.support.workshop import Workshop, small_workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return small_workshop(tmp_path, monkeypatch)


@pytest.fixture
def pretrained(workshop: Workshop, once_pretrained: Path) -> Workshop:
    """One in which ``pretrain`` has ended."""
    return _furnished(workshop, once_pretrained)


@pytest.fixture
def trained(workshop: Workshop, once_trained: Path) -> Workshop:
    """One in which all three trainings have ended."""
    return _furnished(workshop, once_trained)


@pytest.fixture(scope="session")
def once_pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        small_workshop(folder, patch).train("pretrain")
    return folder


@pytest.fixture(scope="session")
def once_trained(tmp_path_factory: pytest.TempPathFactory, once_pretrained: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        workshop = _furnished(small_workshop(folder, patch), once_pretrained)
        workshop.train("stage1")
        workshop.train("stage2")
    return folder


def _furnished(workshop: Workshop, trained: Path) -> Workshop:
    shutil.copytree(trained, workshop.folder, dirs_exist_ok=True)
    return workshop
