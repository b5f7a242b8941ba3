"""Texts as Markdown, LaTeX and a terminal take them."""
