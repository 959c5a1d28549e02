"""The host daemon's surface: one host, over HTTP."""
