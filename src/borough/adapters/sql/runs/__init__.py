"""The store of runs: their rows, and the events that tell of every change."""
