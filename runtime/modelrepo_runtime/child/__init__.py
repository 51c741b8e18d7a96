"""The harness that runs a model inside its version's own environment.

Standard library only, Python 3.9 and later, nothing of ours: the folder is run as it lies here,
`<environment>/bin/python -I -B <this folder> <descriptor>`, by interpreters that have never heard of modelrepo.
"""
