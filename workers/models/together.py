"""How much is computed together. Formulas of memory share it with the models; it imports no torch."""

VALUES_TOGETHER = {"cpu": 2**19, "cuda": 2**24}
"""Logits or scores that are computed together, by device: on a CPU what its cache holds until they are used."""
