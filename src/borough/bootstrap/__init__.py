"""The one place that knows which adapter fills which port."""
