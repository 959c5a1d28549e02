"""The sockets: the gateway's operations over another wire, for agents and for operators of this machine.

Nothing is decided here. A message names a row of the gateway's operation table, its fields fill that row's path, query
and body, and the row's own handler answers; so both doors check, do and record the same.
"""
