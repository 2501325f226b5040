"""Planning with laws: what configurations cost, which is the best for a budget or the cheapest for a target, what to
run next."""
