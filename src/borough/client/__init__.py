"""How Borough's own programs speak to a Borough server: find it, prove who they are, ask, understand errors."""
