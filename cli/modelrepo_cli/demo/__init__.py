"""The demo: a real repository, a real worker, real jobs, told one line a step."""
