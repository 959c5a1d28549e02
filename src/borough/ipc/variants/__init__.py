"""Every message of the sockets, and the row of the operation table that it stands for, one module a concern.

The names and the fields are the reference system's, where its pages have them. An agent's own id may be left out.
"""
