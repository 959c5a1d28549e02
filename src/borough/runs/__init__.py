"""Runs: a task, a machine and rules, admitted as one: rules, ports and use cases, over the other three contexts."""
