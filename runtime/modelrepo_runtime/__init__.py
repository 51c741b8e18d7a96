"""Worker, queue and everything else that runs model versions."""
