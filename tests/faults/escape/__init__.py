"""Attempts to get out of a box. Each succeeds outside (its positive control) and must fail inside."""
