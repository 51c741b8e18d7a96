"""The daemon on a box: slots, swaps, and everything between a settings file and the last goodbye."""
