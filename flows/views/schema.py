"""What a catalog holds: its tables and views, and their columns."""

from textwrap import fill

from flows.views.answers import print_answer
from flows.views.streams import say
from flows.views.tables import open_console, print_line, print_lines
from storage.answers import OpenCatalog
from storage.descriptions import columns_sql, find_table, tables_sql


def print_tables(catalog: OpenCatalog, form: str, limit: int | None) -> None:
    """Tables and views; drawn as a table, each with the first sentence of what it means."""
    is_drawn = form == "table"
    with catalog.ask(tables_sql(in_short=is_drawn)) as answer:
        print_answer(answer, form, limit)
    if is_drawn:
        say("more of one, and its columns: --schema NAME, or in the shell .schema NAME")


def print_columns(catalog: OpenCatalog, name: str | None, form: str, limit: int | None) -> None:
    """Of a table or view, or of all; drawn as a table, what that one means stands above. Raises as
    ``find_table``."""
    table = None if name is None else find_table(catalog, name)
    if table is not None and form == "table":
        console = open_console()
        print_line(console, f"{table['kind']} {table['name']}", "bold")
        if table["about"]:
            print_lines(console, fill(table["about"], console.width))
    with catalog.ask(columns_sql(None if table is None else table["name"])) as answer:
        print_answer(answer, form, limit)
