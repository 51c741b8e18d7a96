"""Contract tests that ship: fill one in for an adapter of your own."""
