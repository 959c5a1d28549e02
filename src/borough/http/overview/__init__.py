"""Routes over all contexts, served where they are served together."""
