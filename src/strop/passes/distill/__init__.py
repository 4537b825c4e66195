"""Passes that have another, smaller model learn what a model answers."""
