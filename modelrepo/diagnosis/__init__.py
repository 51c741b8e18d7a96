"""Find out what this box can reach, how fast, and with whose credentials."""
