"""The routes of runs, beside the town's: the same callers, errors and pages."""
