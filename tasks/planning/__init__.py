"""How long a run will take, found out."""
