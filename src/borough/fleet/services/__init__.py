"""The fleet's use cases: on a host, making and keeping machines; on the controller, everything over many hosts."""
