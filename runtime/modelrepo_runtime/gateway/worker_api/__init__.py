"""What boxes and operators ask of a gateway: the calls of the JobQueue port, the repository, and the files of jobs."""
