"""Keep a repository in order: prune what nothing names, verify what is named."""
