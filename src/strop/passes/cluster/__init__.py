"""Weights that share a few values, so that a file of them zips to little."""
