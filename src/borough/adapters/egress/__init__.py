"""The way out of a box: a proxy with a listener for each box, and the judgement that every way out shares."""
