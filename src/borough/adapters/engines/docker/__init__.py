"""Machines that are containers, by the Engine API over its socket: Docker, or Podman, which speaks it too.

``bodies`` are requests made of values, ``client`` sends them, ``attaching`` speaks over connections that were taken
over, ``archives`` turns files into archives and back, ``driver`` fills the port ``EngineDriver``.
"""
