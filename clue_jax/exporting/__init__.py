"""Between a checkpoint, a dataset and a folder of embeddings: rows, shares, resuming."""
