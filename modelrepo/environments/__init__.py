"""Environments of versions: locked, carried where no index has them, built once per box."""
