"""The mathematics, on NumPy and SciPy alone."""
