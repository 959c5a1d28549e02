"""Use cases over all contexts, one class per concept."""
