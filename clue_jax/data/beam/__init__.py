"""`prepare` on Apache Beam: the same dataset, byte for byte, from many machines."""
