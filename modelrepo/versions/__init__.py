"""Versions: what one consists of, which there are, what two of them differ in."""
