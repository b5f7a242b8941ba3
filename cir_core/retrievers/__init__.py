"""Families of stage 1, one a room."""
