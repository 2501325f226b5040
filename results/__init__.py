"""The ground floor: what a row of results is, and where steps and rows are kept."""
