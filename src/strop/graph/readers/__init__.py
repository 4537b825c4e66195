"""One form a file: what a model file is, and what it says of itself."""
