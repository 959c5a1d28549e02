"""Loops that keep promises: observe, ask a rule, act through a service. All their state is in the stores."""
