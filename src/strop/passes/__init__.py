"""Techniques: one a file; the file's name is its name in recipes, on the command line and in reports."""
