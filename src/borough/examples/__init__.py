"""Example agents that do real work without any model: for the demonstration, for tests, and as a pattern to copy."""
