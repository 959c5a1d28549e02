"""Settings: read once, at the rim, into frozen sections. Unknown keys are refused.

``sections`` says what can be set, ``town`` and ``global_file`` read it, ``town_file`` and ``editing`` write it,
``agent_clis`` turns a CLI's name into an argument list, ``safety`` refuses to start what would be unsafe.
"""
