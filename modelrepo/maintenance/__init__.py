"""What keeps a repository sound and small: delete, prune, verify, repair."""
