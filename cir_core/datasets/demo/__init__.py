"""The embedded default: a Fashion-IQ-shaped world of drawn garments, deterministic by seed."""
