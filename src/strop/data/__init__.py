"""The user's samples: reading them and splitting them."""
