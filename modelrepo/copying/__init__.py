"""Bring versions from one repository into another."""
