"""Pictures on their way to a model."""
