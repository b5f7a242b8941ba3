"""The stages of a run: each says what names it, what it holds, its shards and its work."""
