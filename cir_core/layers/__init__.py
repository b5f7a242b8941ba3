"""Blocks that families of models share."""
