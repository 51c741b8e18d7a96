"""The JobQueue over a gateway's HTTP: for workers and operators that reach no database."""
