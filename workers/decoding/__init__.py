"""Constrained decoding: one index for every identifier kind, beams as intervals of it, evidence out of beams."""
