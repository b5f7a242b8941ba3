"""Training, from triplets to model folders."""
