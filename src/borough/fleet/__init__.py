"""Homes for agents: hosts, environments of virtual machines, containers and sandboxes, images, networks, storage."""
