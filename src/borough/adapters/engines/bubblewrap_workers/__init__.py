"""Boxes of the town's own workers: a worker with its agent CLI, apart from the server's state and the user's home.

They are wider than the boxes of governed agents (``engines.bubblewrap``): the network is the machine's, the project is
writable. ``layout`` turns values into bubblewrap's arguments, ``following`` and ``showing`` look up what a worker needs
of this machine, ``boxes`` decides and makes, ``starting`` starts and finds out who the worker is.
"""
