"""Governance's use cases: load, judge, record the intent, act, record the outcome; one class per concept."""
