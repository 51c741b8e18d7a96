"""Make a model folder that a person can edit and push out of what others have published."""
