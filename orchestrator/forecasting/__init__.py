"""What a sweep will cost: work, rates, durations, disk and the time left."""
