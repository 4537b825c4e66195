"""Engines that run models, one a file."""
