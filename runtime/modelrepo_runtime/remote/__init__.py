"""What a box reaches through a gateway: one connection a thread, the repository's bytes, and the files of jobs."""
