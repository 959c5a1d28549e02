"""The worker: the program that serves one agent.

It takes work from a server over HTTP, runs the agent's CLI on it, sends what the CLI prints, and reports how it
ended. It never opens the store, so it runs wherever HTTP reaches the server.
"""
