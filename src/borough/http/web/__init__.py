"""The dashboard: its files, and how its user is let in."""
