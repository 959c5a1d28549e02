"""What Borough tells about itself while it runs: logs, metrics, trace context."""
