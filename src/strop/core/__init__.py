"""The words of strop as plain values, the contracts, the registry and the errors; no ML framework."""
