"""Adapters that a team publishes for jobs to name: files beside the models, immutable and known by their digest."""
