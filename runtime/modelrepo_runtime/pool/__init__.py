"""The host pool: checkpoint files in shared memory, one copy for all processes of the box."""
