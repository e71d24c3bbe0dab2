"""The on-disk format of embeddings."""
