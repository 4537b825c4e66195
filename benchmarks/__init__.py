"""What strop is measured against, and what reproduces it."""
