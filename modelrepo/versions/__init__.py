"""Versions: what is packed, published, pulled and compared."""
