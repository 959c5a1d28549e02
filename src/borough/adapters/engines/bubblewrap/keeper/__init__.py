"""The keeper: one process beside the daemon that makes boxes, holds workspaces mounted, and waits for what runs.

It outlives the daemon, so that a restart finds every box again; when the keeper itself ends, the kernel ends all its
boxes. It has a mount namespace of its own (for an ordinary user also a user namespace), so nothing that it mounts is
seen elsewhere, and all of it is gone with it. Only the standard library is imported.
"""
