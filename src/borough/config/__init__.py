"""Settings: read once, at the rim, into frozen sections. Unknown keys are refused."""
