"""Nearest images of a query."""
