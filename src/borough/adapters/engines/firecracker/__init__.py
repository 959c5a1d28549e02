"""Machines of Firecracker: small virtual machines that boot a kernel directly, confined by its jailer where possible.

They need KVM on which guests really boot, and a bridge: there is no user-mode networking. ``bodies`` says what is run
and asked, ``api`` asks it, ``rooms`` is the folder that a machine sees, ``running`` starts, finds and ends it,
``probing`` boots the smallest of guests, ``driver`` is the port.
"""
