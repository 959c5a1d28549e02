"""Twenty tasks for the reader over this project's own sources; paths are relative to the checkout."""

DEMO_TASKS: tuple[str, ...] = (
    "List the largest modules in `src/borough`.",
    "List the largest modules in `tests`.",
    "Find import cycles in `src/borough`.",
    "Find import cycles in `src/borough/town`.",
    "Make a TODO inventory of `src`.",
    "Make a TODO inventory of `tests`.",
    "List all test names in `tests/rules`.",
    "List all test names in `tests/services`.",
    "Check the licence headers in `src/borough`.",
    "Check the licence headers in `tests`.",
    "Count the functions per module in `src/borough/town`.",
    "Count the functions per module in `src/borough/worker`.",
    "Count the functions per module in `src/borough/adapters`.",
    "Show the longest functions in `src/borough`.",
    "Show the longest functions in `tests`.",
    "Which public names in `src/borough/core` lack docstrings?",
    "Which public names in `src/borough/town` lack docstrings?",
    "Which public names in `src/borough/http` lack docstrings?",
    "Which third-party packages are used in `src/borough`?",
    "Which third-party packages are used in `tests`?",
)
