"""A graph written more simply, that computes the same."""
