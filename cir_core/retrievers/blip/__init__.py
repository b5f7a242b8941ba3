"""BLIP's text encoder over a reference image, as published."""
