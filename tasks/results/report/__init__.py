"""One self-contained HTML page a run: a module and a template for each of its sections."""
