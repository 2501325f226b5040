"""The report of laws: a page, figures and numbers."""
