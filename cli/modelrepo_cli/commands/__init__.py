"""One file a verb; each exposes `command`, and is imported only when it is called for."""
