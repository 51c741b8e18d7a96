"""Contract suites that every adapter of a runtime port passes."""
