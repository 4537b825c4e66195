"""Models of every form seen as graphs: reading, freezing, converting, rewriting."""
