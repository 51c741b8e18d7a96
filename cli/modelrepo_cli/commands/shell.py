"""`modelrepo shell`."""
