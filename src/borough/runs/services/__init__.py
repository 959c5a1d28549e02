"""Use cases of runs: admitted, worked, collected, ended. They use the services of town, fleet and governance."""
