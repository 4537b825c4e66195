"""From one form to another, one target a file."""
