"""The driver's side: grid -> steps -> Ray -> rows. Never touches tensors."""
