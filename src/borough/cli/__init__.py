"""The command lines: parse, call the server, print. Logs go to stderr, results to stdout."""
