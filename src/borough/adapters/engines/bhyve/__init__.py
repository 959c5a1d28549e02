"""Machines of bhyve, FreeBSD's own: virtual machines by its base system's tools.

``argv`` says what is run and reads what ``ps`` tells, ``driver`` is the port. Everything goes through a runner, so that
the whole of it is tested where there is no FreeBSD; on such a host it is never offered.
"""
