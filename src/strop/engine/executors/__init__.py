"""Where trials run: local workers today."""
