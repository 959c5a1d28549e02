"""The program that serves one agent: asks for work over HTTP, runs the agent's CLI, reports what came of it."""
