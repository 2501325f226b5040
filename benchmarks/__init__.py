"""What Gridlaw's parts cost, beside what users have today, on the machine at hand: `python -m benchmarks`."""
