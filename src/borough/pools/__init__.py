"""Pools: machines of the fleet that come and go with the town's work, one pool a role.

Rules here, ports in ``ports``, use cases in ``services``. It stands above town, fleet and governance and joins them;
none of them knows of it.
"""
