"""The host's network of machines on Linux: a bridge with links, one firewall, and what there is without privilege.

``commands`` are argument lists made of values; ``bridge`` and ``nftables`` run them; ``user_mode`` publishes ports
where no bridge may be made; ``host`` fills the port ``HostNetwork`` with whichever is possible.
"""
