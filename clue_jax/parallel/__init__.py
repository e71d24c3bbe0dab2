"""Devices: the mesh and what is sharded over it."""
