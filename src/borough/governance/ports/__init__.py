"""What governance needs from outside. One method is one atomic step and says what it raises.

All raise ``Unavailable`` (code ``store_unavailable``) when what is behind them does not answer; methods that read may
then be repeated, and so may those that say they are idempotent. ``NotFound`` has the codes ``agent_not_found``,
``token_not_found`` and so on, after the thing that was named.
"""
