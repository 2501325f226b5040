"""How steps run: what is ready, where there is room, what failed and what is tried again."""
