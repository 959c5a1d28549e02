"""The fleet's stores in SQLite: the controller's rows, and the rows of one host."""
