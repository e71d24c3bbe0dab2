"""The encoder; the only place that imports flax."""
