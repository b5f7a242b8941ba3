"""Vision-language models that answer yes or no."""
