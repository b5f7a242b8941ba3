"""What several flow tests share."""

from pathlib import Path

import pytest

from tests.support.workshop import Workshop, small_workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return small_workshop(tmp_path, monkeypatch)
