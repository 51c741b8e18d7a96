"""How bytes get into a repository beside prunes and other writers: docs/format.md, "Publication"."""
