"""What a user sees: the plan, the live view, the status and what became of a sweep."""
