"""Facts of datasets, and what they find in a copy."""
