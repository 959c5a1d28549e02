"""What is kept in SQLite files: one writer a file, many writes a commit, on disk before anything is acknowledged."""
