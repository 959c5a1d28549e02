"""The HTTP surfaces: parse, call one service, render. No decisions."""
