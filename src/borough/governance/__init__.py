"""What agents may do, and the record of what they did.

Rules only: values, tables of legal moves, pure functions. No I/O, no clock, no randomness.
Use cases are in ``services``; what they need from outside is in ``ports``.
"""
