"""Downstream tasks and baselines on exported embeddings."""
