"""Machines of QEMU: full virtual machines, with KVM where guests really boot on it and by translation elsewhere.

``argv`` says what is run, ``qmp`` speaks to it, ``running`` starts, finds and ends it, ``snapshots`` keeps states in
its disk, ``acceleration`` finds out what guests boot on, ``driver`` is the port.
"""
