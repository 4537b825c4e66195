"""Layers written as several that have less to multiply."""
