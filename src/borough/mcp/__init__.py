"""Agents' tools over the Model Context Protocol: another wire to the same services.

Here belongs what the protocol says; who asks and what a call does is given as functions. No decisions, no stores.
"""
