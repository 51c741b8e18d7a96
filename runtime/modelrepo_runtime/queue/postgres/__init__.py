"""The queue of a fleet, on PostgreSQL."""
