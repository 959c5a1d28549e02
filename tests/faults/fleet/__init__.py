"""What must hold of the fleet while controllers and host daemons are killed, and hosts misbehave."""
