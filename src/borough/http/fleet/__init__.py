"""The fleet controller's surface: the reference's routes and ours, on one operation table."""
