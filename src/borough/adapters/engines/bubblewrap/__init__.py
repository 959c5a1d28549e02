"""Boxes made by bubblewrap: agents and the code of ``sandbox.exec`` run in them, apart from the host and each other.

What is decided about a box (``view``, ``argv``, ``seccomp``, ``landlock``, ``limits``) are plain functions of values;
``keeper`` is the process that makes boxes and outlives the daemon; ``runner`` and ``sandbox`` fill the ports.
"""
