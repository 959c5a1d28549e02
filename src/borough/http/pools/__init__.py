"""The routes of pools, their bodies, and their document."""
