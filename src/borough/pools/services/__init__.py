"""The use cases of pools: keep them, watch their machines, make them as large as the work asks for."""
