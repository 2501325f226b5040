"""Models: shapes and counts, the ladder of sizes, building and loading. Shapes and the ladder import no torch."""
