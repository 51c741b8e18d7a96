"""The stateless HTTP server between workers or clients and the fleet's database."""
