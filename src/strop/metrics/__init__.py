"""Questions about the quality of answers, one a file."""
