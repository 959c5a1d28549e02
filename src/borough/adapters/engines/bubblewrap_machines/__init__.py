"""Machines that are processes: a root folder with a layer over it, in namespaces of its own, made by bubblewrap.

Each machine has a *warden*: a small process that makes the box, keeps what it prints, lets commands and files in, and
with whose end the kernel ends the box. It outlives the daemon, so a restart finds every machine again by it.

``beginning``, ``door``, ``doorman``, ``entries``, ``grouping``, ``idmapped``, ``inside``, ``marks``, ``nursery``,
``rooting``, ``starting`` and ``warden`` run without site packages and import only the standard library and their like.
``plans`` says what a warden is given, ``state`` where it keeps its things, ``making`` starts and clears machines,
``driver`` fills the port ``EngineDriver``.
"""
