"""Where jobs wait: the port, its adapters, and the order in which jobs are taken."""
