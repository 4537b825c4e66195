"""Fewer weights: those that matter least are zero, and the others make up for them."""
