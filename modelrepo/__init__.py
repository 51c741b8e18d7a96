"""A repository of immutable model versions in any bucket, and their environments."""
