"""Several runs of the same queries beside each other."""
