"""The query browser in Chromium: what it finds is what SQL finds, by mouse, keys and address."""

from typing import Any

from playwright.sync_api import Page, expect

from tests.browser.conftest import Opening
from tests.browser.made_report import HOSTILE, MadeReport

SHOWN = "#query-results > article"

FOUND = """() =>
  QueryData.found(QueryData.parse(location.hash)).map((query) => QueryData.columns.id[query])"""
"""Ids of all results, of which the page shows five."""

LAST = "coalesce(stage2_rank, 2147483647)"
TRAITS = "query_traits"
FILTERS: list[tuple[str, str, str, str]] = [
    ("category", "<b>shirt</b>", "category = '<b>shirt</b>'", "queries"),
    ("moved", "up", "places_gained > 0", "rank_movement"),
    ("moved", "down", "stage1_rank < stage2_rank", "rank_movement"),
    ("moved", "same", "is_candidate AND stage1_rank = stage2_rank", "rank_movement"),
    ("moved", "kept", "is_candidate", "rank_movement"),
    ("moved", "lost", "reason = 'lost in stage 1'", "failures"),
    ("moved", "cannot", "reason = 'cannot be answered'", "failures"),
    ("answer", "right", "stage2_rank = 1", "rank_movement"),
    ("answer", "wrong", f"{LAST} > 1", "rank_movement"),
    ("answer", "both", "stage1_rank = 1 AND stage2_rank = 1", "rank_movement"),
    ("answer", "won", "coalesce(stage1_rank, 9) > 1 AND stage2_rank = 1", "rank_movement"),
    ("answer", "spoiled", f"stage1_rank = 1 AND {LAST} > 1", "rank_movement"),
    (
        "answer",
        "reference",
        "(query_id, reference_id) IN (SELECT (query_id, image_id) FROM rankings WHERE rank = 1)",
        "queries",
    ),
    ("answer", "image", "image_rank = 1", "probes"),
    ("answer", "text", "text_rank = 1", "probes"),
    ("label", "some", "targets IS NOT NULL", "queries"),
    ("label", "none", "targets IS NULL", "queries"),
    ("label", "unasked", "query_id NOT IN (SELECT query_id FROM candidates)", "queries"),
    (
        "shows",
        "dress-03",
        "query_id IN (FROM rankings SELECT query_id WHERE pool = 'gallery' AND rank <= 10 AND "
        "image_id = 'dress-03')",
        "queries",
    ),
    ("negation", "yes", "has_negation", TRAITS),
    ("negation", "no", "NOT has_negation", TRAITS),
    ("least", "6", "words >= 6", TRAITS),
    ("most", "3", "words <= 3", TRAITS),
]


def choose(page: Page, name: str, value: str) -> None:
    field = page.locator(f"#query-filters [name={name}]")
    is_list = field.evaluate("field => field.tagName") == "SELECT"
    field.select_option(value) if is_list else field.fill(value)


def found(page: Page) -> list[str]:
    """Ids of the results of the state in the address, whose first are shown, and counted."""
    ids: list[str] = page.evaluate(FOUND)
    assert page.locator(f"{SHOWN} h3").all_text_contents() == ids[:5]
    expect(page.get_by_role("status")).to_contain_text(f"of {len(ids)}; 48 queries in all.")
    return ids


def go_to_query(page: Page, query: str) -> None:
    page.evaluate("query => { location.hash = `q=${encodeURIComponent(query)}` }", query)
    expect(page.locator(f"{SHOWN} h3")).to_have_text([query])


def test_every_filter_finds_what_sql_finds(page: Page, mixed: MadeReport) -> None:
    for name, value, condition, view in FILTERS:
        wanted = mixed.ids(condition, of=view)
        choose(page, name, value)
        assert set(found(page)) == wanted, (name, value)
        assert wanted, f"nothing is asked by {name} = {value}"
        option = page.locator(f"#query-filters select[name={name}] option:checked")
        if option.count():
            assert f"({len(wanted)})" in (option.text_content() or "")
        page.get_by_role("button", name="Reset").click()


def test_filters_hold_together_and_none_is_told(page: Page, mixed: MadeReport) -> None:
    choose(page, "moved", "down")
    choose(page, "category", "dress")
    wanted = mixed.ids("places_gained < 0 AND category = 'dress'")
    assert set(found(page)) == wanted
    choose(page, "find", "nothing has this word")
    expect(page.get_by_role("status")).to_have_text("None of 48 queries.")
    expect(page.locator(SHOWN)).to_have_count(0)


SEARCHES = {
    "RED sleeves": "text LIKE '%red%' AND text LIKE '%sleeves%'",
    "dress-q07": "query_id = 'dress-q07'",
    "dress-03": "reference_id = 'dress-03' OR list_contains(targets, 'dress-03')",
    "<script>": "contains(concat_ws(' ', query_id, text, reference_id, targets::VARCHAR), "
    "'<script>')",
}


def test_a_search_finds_words_of_texts_and_ids(page: Page, mixed: MadeReport) -> None:
    for words, condition in SEARCHES.items():
        choose(page, "find", words)
        assert set(found(page)) == mixed.ids(f"({condition})", of="queries"), words


ORDERS = {
    "gained": "places_gained",
    "stage1": "stage1_rank",
    "last": "stage2_rank",
    "length": "length(text)",
    "id": "query_id",
}


def test_the_order_is_sqls(page: Page, mixed: MadeReport) -> None:
    for sort, column in ORDERS.items():
        choose(page, "sort", sort)
        for direction in ("", "DESC"):
            page.get_by_label("descending").set_checked(direction != "")
            rows = mixed.rows(
                "SELECT query_id FROM queries LEFT JOIN (SELECT query_id, places_gained, "
                "stage1_rank, stage2_rank FROM rank_movement WHERE pool = 'gallery') "
                f"USING (query_id) ORDER BY {column} {direction} NULLS LAST, query_id"
            )
            assert found(page) == [row["query_id"] for row in rows], (sort, direction)


def test_a_group_shows_its_samples_first(page: Page, mixed: MadeReport) -> None:
    groups = page.locator("#queries .groups > li")
    titles = groups.locator("a").all_text_contents()
    assert titles == [
        *("Re-ranking gained most", "Re-ranking lost most", "Lost in stage 1"),
        *("Right in both stages", "Queries without label"),
    ]
    for group in groups.all():
        group.locator("a").click()
        wanted = mixed.rows(group.locator("pre").text_content() or "")
        ids = [row["query_id"] for row in wanted]
        assert found(page)[: len(ids)] == ids


def test_a_link_to_a_state_gives_it_back(page: Page, opened: Opening, mixed: MadeReport) -> None:
    choose(page, "moved", "up")
    choose(page, "sort", "gained")
    page.get_by_label("descending").check()
    page.get_by_role("button", name="Next").first.click()
    shown = page.locator(f"{SHOWN} h3").all_text_contents()
    address = page.evaluate("location.hash")
    assert address == "#queries&moved=up&sort=gained&descending=1&page=2"
    again = opened(mixed.page, at=address)
    assert again.locator(f"{SHOWN} h3").all_text_contents() == shown
    assert again.locator("[name=moved]").input_value() == "up"
    assert again.get_by_label("descending").is_checked()


def test_a_link_to_a_query_leads_there_and_back(page: Page, mixed: MadeReport) -> None:
    choose(page, "find", "red")
    choose(page, "sort", "id")
    shown = page.locator(f"{SHOWN} h3").all_text_contents()
    link = page.locator(f"{SHOWN} h3 a").nth(1)
    link.click()
    expect(page.locator(f"{SHOWN} h3")).to_have_text([shown[1]])
    expect(page.locator(SHOWN)).to_be_focused()
    page.go_back()
    expect(page.locator(f"{SHOWN} h3")).to_have_text(shown)
    assert page.locator("[name=find]").input_value() == "red"


ODD = (
    "moved=__proto__&sort=__proto__&answer=constructor&label=toString",
    "least=abc&most=-1&page=2e9&descending=yes&category=nobody&negation=maybe",
    "sort=&moved=nothing&hasOwnProperty=1&page=",
)
"""What no control of the page says."""


def test_what_an_address_says_that_is_not_known_is_not_taken(
    page: Page, opened: Opening, mixed: MadeReport
) -> None:
    everything = found(page)
    for odd in ODD:
        page.evaluate("hash => { location.hash = hash }", f"queries&{odd}")
        expect(page.locator("[name=sort]")).to_have_value("order")
        assert found(page) == everything, odd
    again = opened(mixed.page, at=f"#queries&{ODD[0]}&moved=__proto__&find=red&page=999")
    expect(again.get_by_role("status")).to_contain_text("48 queries in all")
    assert again.locator("[name=moved]").input_value() == ""
    assert again.locator("[name=find]").input_value() == "red"


def test_tables_lead_to_their_queries_and_images(page: Page, mixed: MadeReport) -> None:
    link = page.locator("#separation td a").first
    query = link.text_content()
    link.click()
    expect(page.locator(f"{SHOWN} h3")).to_have_text([query or ""])
    page.evaluate("location.hash = 'queries&shows=dress-03'")
    count = len(found(page))
    page.locator(f"{SHOWN} .top button[aria-label*=': dress-03,']").last.click()
    shows = page.get_by_role("dialog").get_by_role("link", name=f"{count} queries")
    shows.click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert page.locator("[name=shows]").input_value() == "dress-03"


def test_an_unknown_query_is_told(page: Page, mixed: MadeReport) -> None:
    page.evaluate("location.hash = 'q=%3Cb%3Enobody'")
    expect(page.get_by_role("status")).to_contain_text("This page has no query <b>nobody")
    expect(page.get_by_role("button", name="Next")).to_have_count(0)
    page.get_by_role("link", name="All queries").click()
    expect(page.locator(SHOWN)).to_have_count(5)


def test_keys_turn_pages_and_walk_queries(page: Page, mixed: MadeReport) -> None:
    first = page.locator(f"{SHOWN} h3").all_text_contents()
    page.keyboard.press("n")
    second = page.locator(f"{SHOWN} h3").all_text_contents()
    assert not {*first} & {*second}
    expect(page.locator(SHOWN).first).to_be_focused()
    for _ in range(5):
        page.keyboard.press("j")
    expect(page.locator(".page-number").first).to_have_text("Page 3 of 10")
    page.keyboard.press("k")
    expect(page.locator(SHOWN).last).to_be_focused()
    assert page.locator(f"{SHOWN} h3").all_text_contents() == second
    page.keyboard.press("p")
    assert page.locator(f"{SHOWN} h3").all_text_contents() == first
    page.keyboard.press("p")
    expect(page.locator(".page-number").first).to_have_text("Page 1 of 10")


def test_keys_are_shown_and_leave_fields_alone(page: Page, mixed: MadeReport) -> None:
    page.keyboard.press("?")
    help_ = page.get_by_role("dialog", name="Keys")
    expect(help_).to_be_visible()
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    expect(help_).to_be_hidden()
    expect(page.locator(".page-number").first).to_have_text("Page 1 of 10")
    page.keyboard.press("/")
    search = page.get_by_role("searchbox", name="Search texts and ids")
    expect(search).to_be_focused()
    page.keyboard.type("nj?/")
    expect(search).to_have_value("nj?/")
    expect(help_).to_be_hidden()
    search.fill("")
    search.blur()
    page.get_by_role("button", name="Keys").click()
    page.get_by_label("use these keys").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("n")
    expect(page.locator(".page-number").first).to_have_text("Page 1 of 10")


def test_a_picture_opens_larger_and_gives_the_focus_back(page: Page, mixed: MadeReport) -> None:
    go_to_query(page, "dress-q07")
    page.mouse.move(0, 0)
    (row,) = mixed.rows(
        "SELECT image_id, stage1_rank, rank, round(stage1_score, 4) AS one, "
        "round(stage2_score, 4) AS two FROM rankings "
        "WHERE query_id = 'dress-q07' AND rank = 1 AND pool = 'gallery'"
    )
    picture = page.locator(".top").last.get_by_role("button").first
    assert (picture.get_attribute("aria-label") or "").startswith(f"1: {row['image_id']}, ")
    score = picture.locator(".score")
    expect(score).to_have_css("opacity", "0")
    picture.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    expect(dialog.get_by_role("heading")).to_have_text(row["image_id"])
    assert (
        f"stage 2: place 1, score {row['two']:g}"
        in dialog.get_by_role("listitem").all_inner_texts()
    )
    assert dialog.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(picture).to_be_focused()
    expect(score).to_have_css("opacity", "1")
    assert (
        page.locator(".same").count()
        == page.locator(f"[data-image='{picture.evaluate('b => b.dataset.image')}']").count()
    )


def test_a_card_says_what_sql_says(page: Page, mixed: MadeReport) -> None:
    """Order, scores, movement and marks of both stages, for every query."""
    rows: dict[str, dict[str, Any]] = {}
    for row in mixed.rows(
        "SELECT r.*, list_contains(targets, image_id) AS is_target, "
        "image_id = reference_id AS is_reference "
        "FROM rankings r JOIN queries USING (run_id, query_id) WHERE pool = 'gallery'"
    ):
        rows.setdefault(row["query_id"], {})[row["image_id"]] = row
    for query in ("dress-q07", "dress-q10", "<b>shirt</b>-q03", HOSTILE[1]):
        go_to_query(page, query)
        for top, mine in enumerate(("stage1_rank", "rank")):
            told = page.locator(".top").nth(top).get_by_role("button").all()
            ranked = sorted(rows[query].values(), key=lambda row: row[mine])[:10]
            assert len(told) == len(ranked)
            for button, row in zip(told, ranked, strict=True):
                label = button.get_attribute("aria-label") or ""
                assert label.startswith(f"{row[mine]}: {row['image_id']}, ")
                assert (", target, " in label) == bool(row["is_target"])
                assert (", reference, " in label) == row["is_reference"]
                score = row["stage1_score"] if mine == "stage1_rank" else row["stage2_score"]
                assert f"score {round(score, 4):g}" in label
                gained = row["stage1_rank"] - row["rank"]
                arrow = f"↑{gained}" if gained > 0 else f"↓{-gained}" if gained else "="
                assert button.locator(".caption").text_content() == f"{row[mine]} {arrow}"


def test_hostile_ids_and_texts_are_inert(page: Page, mixed: MadeReport) -> None:
    title = page.title()
    assert title.startswith("cir-pipeline: ")
    for text in HOSTILE:
        go_to_query(page, text)
        assert page.locator(f"{SHOWN} .asked").text_content() == text
        for picture in page.locator(f"{SHOWN} .given button").all():
            picture.click()
            page.keyboard.press("Escape")
    assert page.locator("#queries b, #queries script script, #queries img[onerror]").count() == 0
    assert page.title() == title
