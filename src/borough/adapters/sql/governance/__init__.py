"""Governance's stores in one SQLite file: one module a port, and the tables of all of them.

This process is the only one that writes the file. What is read on every tool call (agents, manifests, grants) is kept
in memory too and follows what is on disk: see ``following``.
"""
