"""Where a step fits: its memory, the ZeRO stage, the GPUs; and what fits nowhere."""
