"""Workers and clients by the thousand, in one process, for bench/gateway.py."""
