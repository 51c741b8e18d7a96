"""Stores of bytes under keys: the port, and its adapters."""
