"""What the fleet needs from outside. One method is one atomic step and says what it raises.

All raise ``Unavailable`` when what is behind them does not answer; then it is *unknown* whether the step was done, and
every step that changes something may be repeated: it is keyed by the machine's id.
"""
