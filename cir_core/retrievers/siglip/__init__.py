"""SigLIP and SigLIP 2 of fixed resolution: a query is a weighted sum of its embeddings."""
