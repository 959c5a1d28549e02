"""Agents' workspaces on this machine's disk: a base that is only read, what the agent wrote above it, and its past."""
