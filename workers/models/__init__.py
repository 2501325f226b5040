"""Models: shapes and counts, the ladder of sizes, building and loading. Only `build.py` imports torch."""
