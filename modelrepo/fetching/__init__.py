"""From a repository to this box: every byte verified, nothing half-done under its final name."""
