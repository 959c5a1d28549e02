"""What the town needs from outside. One method is one atomic step, in one round trip, event included.

An agent may be named by every method that takes an ``agent`` reference: by id, name (any case), nickname, label or
short id; ``supervisor`` and ``conductor`` (any case) stand for the supervisor's mailbox. Such methods raise
``NotFound`` (code ``agent_not_found``) and ``Conflict`` (code ``agent_ambiguous``, the candidates in ``reason``).
Methods that take a task id raise ``NotFound`` (code ``task_not_found``). All raise ``Unavailable`` (code
``store_unavailable``) when the store does not answer; every method may then be repeated with the same arguments.
"""
