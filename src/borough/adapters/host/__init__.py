"""Hosts: speaking to one over HTTP, and what a host daemon reads off its own machine."""
