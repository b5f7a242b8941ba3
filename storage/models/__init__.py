"""Folders of models, and the files they are converted from."""
