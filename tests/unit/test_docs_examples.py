"""What docs/adding-*.md shows works when it is done as it is written."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documents import ROOT, Block, blocks, place

GUIDES = sorted((ROOT / "docs").glob("adding-*.md"))
PACKAGES = ("flows", "tasks", "storage", "cir_core")


@pytest.mark.slow  # torch is imported anew for each
@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_guides_example_works_as_it_is_written(guide: Path, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package)
    written = list(blocks(guide.read_text(encoding="utf-8")))
    assert any(block.language == "python" for block in written)
    for block in written:
        if block.language == "diff" or (block.language == "python" and block.file):
            place(block, tmp_path)
    reader = ROOT / "tests" / "support" / "reader.py"
    done = subprocess.run(
        [sys.executable, str(reader), str(guide)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


TEXT = """# A guide

```python
first = 1  # not a heading:
# `cir_core/no.py`
```

## 1. The end of `storage/there.py`

```diff
 kept = 1
-gone = 2
+come = 3
```

```python
more = 4
```
"""


def test_a_block_belongs_to_the_file_of_the_heading_above_it(tmp_path: Path) -> None:
    first, edit, more = blocks(TEXT)
    assert (first.file, edit.file, more.file) == (None, "storage/there.py", "storage/there.py")
    assert TEXT.splitlines()[edit.line - 1] == " kept = 1"
    there = tmp_path / "storage" / "there.py"
    there.parent.mkdir()
    there.write_text("kept = 1\ngone = 2\n\nlast = 0\n")
    place(edit, tmp_path)
    place(more, tmp_path)
    assert there.read_text() == "kept = 1\ncome = 3\n\nlast = 0\nmore = 4\n"


def test_an_edit_whose_lines_are_not_there_is_told_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"line 7: a/b\.py holds these lines 0 times"):
        place(Block("diff", "-gone\n", 7, "a/b.py"), tmp_path)
    with pytest.raises(ValueError, match="line 7: no heading names the file"):
        place(Block("diff", "-gone\n", 7, None), tmp_path)
