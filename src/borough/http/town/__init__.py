"""The town's REST surface: one module per resource, and ``wire`` for the bodies."""
