"""The embedded queue: one SQLite file that the processes of one box share."""
