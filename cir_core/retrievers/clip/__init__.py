"""CLIP: a query is a weighted sum of its embeddings; or a text with a word for the picture."""
