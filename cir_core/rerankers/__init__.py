"""Families of stage 2, one a room."""
