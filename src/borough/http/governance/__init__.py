"""Governance's routes: the gateway of the reference page, and what it lacks; one module a resource."""
