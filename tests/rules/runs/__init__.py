"""The rules of runs."""
