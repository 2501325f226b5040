"""How far to trust a law: rivals, hold-outs, the structure of its residuals, a verdict in words, a card."""
