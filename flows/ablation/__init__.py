"""Variants trained, run and compared under one budget."""
