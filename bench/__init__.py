"""One module for each headline figure; ``python -m bench`` runs them and writes docs/performance.md."""
