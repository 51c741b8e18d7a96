"""For tests of whatever builds on modelrepo: contract tests for an adapter of your own, a real S3 server, and networks,
disks and moments that go wrong on purpose.
"""
