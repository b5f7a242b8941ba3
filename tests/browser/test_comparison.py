"""The pages of a comparison and of an ablation in a browser: whole, inert, readable by everybody,
at any width."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cir_core.types import Pool
from flows.ablation.rendering import PAGE, render
from flows.ablation.table import Recall, Table, TableRow
from storage.store import LocalStore
from storage.views import run_id_of
from tasks.results.compare.compare import compare
from tasks.results.compare.comparison import Asked
from tests.support.made_runs import cirr_benchmark, random_scores, write_run

if TYPE_CHECKING:
    from tests.browser.conftest import Opening

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs with pictures."""
    folder = tmp_path_factory.mktemp("compared")
    benchmark = cirr_benchmark(12, 9)
    scores = [random_scores(benchmark, np.random.default_rng(seed), 100) for seed in range(3)]
    runs = [
        write_run(
            folder / "store",
            benchmark,
            protocol="cirr-removed-subset-scored",
            k=5,
            stage1=scores[0],
            stage2=one,
            model=f"{place:064x}",
            pictures=folder / "pictures",
        )
        for place, one in enumerate(scores[1:])
    ]
    made = compare(
        LocalStore(folder / "store"),
        [run_id_of(run) for run in runs],
        asked=Asked(rounds=99),
        root_of=lambda _: folder / "pictures",
    )
    return made.files[0]


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of rows with hostile names that were not trained here."""
    recall: dict[tuple[Pool, int], Recall] = {
        ("gallery", k): Recall(0.5, 0.4, 0.6, None, -0.1, -0.2, 0.1) for k in (1, 5, 10, 50)
    }
    rows = [
        TableRow(name, (0,), ("0" * 12,), ("1" * 64,), 50, "fp32", recall, None, None)
        for name in ("paper's", "<b>x</b>" + 40 * "y")
    ]
    table = Table("demo", "val", "demo-original-kept", 9, {}, rows)
    path = tmp_path_factory.mktemp("ablation") / PAGE
    path.write_text(render(table, title="<i>a</i>")[PAGE], encoding="utf-8")
    return path


@pytest.mark.parametrize(("width", "colours"), [(390, "light"), (1280, "dark")])
@pytest.mark.parametrize("which", ["page", "ablation"])
def test_it_fits_its_window_and_hinders_nobody(
    opened: "Opening", request: pytest.FixtureRequest, which: str, width: int, colours: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = request.getfixturevalue(which)
    options: dict[str, Any] = {"viewport": {"width": width, "height": 900}, "bypass_csp": True}
    shown = opened(page, color_scheme=colours, **options)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(shown).response["violations"]
    assert [(one["id"], one["nodes"][0]["html"]) for one in found] == []


def test_targets_are_framed_and_pictures_are_within_the_page(opened: "Opening", page: Path) -> None:
    shown = opened(page)
    pictures = shown.locator(".differing img")
    assert pictures.count() > 10
    assert pictures.evaluate_all("all => all.every(one => one.src.startsWith('data:'))")
    assert pictures.evaluate_all("all => all.every(one => one.naturalWidth > 0)")
    assert shown.locator(".differing figure.target").count() >= shown.locator(".query").count()
