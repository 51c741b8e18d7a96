"""A day of the fleet on a virtual clock, with the real policy code."""
