"""The town's ports on Valkey or Redis.

Each method is one call of one server-side function and one reading of its answer; nothing is decided here.
"""
