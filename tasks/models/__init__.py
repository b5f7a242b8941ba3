"""Model folders: opened, converted."""
