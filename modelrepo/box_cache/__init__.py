"""The box's version cache: what it holds, who uses it, what goes when room is needed."""
