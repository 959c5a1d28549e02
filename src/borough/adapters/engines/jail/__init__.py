"""Machines that are jails of FreeBSD: processes of the host with a root folder and an address of their own.

``argv`` says what is run, ``driver`` is the port. Everything goes through a runner, so that the whole of it is tested
where there is no FreeBSD; on such a host it is never offered.
"""
