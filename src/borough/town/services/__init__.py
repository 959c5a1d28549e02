"""The town's use cases: load, rule, commit, act, announce. One class per concept."""
