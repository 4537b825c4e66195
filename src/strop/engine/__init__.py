"""Carries recipes out: the only code that knows the order of things."""
