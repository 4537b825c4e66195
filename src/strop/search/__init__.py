"""Which recipe next."""
