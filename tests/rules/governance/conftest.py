"""Hypothesis measures no wall time here: a busy machine says nothing about a rule."""

from hypothesis import settings

settings.register_profile("rules", deadline=None)
settings.load_profile("rules")
