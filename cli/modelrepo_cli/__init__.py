"""The `modelrepo` command: one file a verb, each of which parses, makes one library call and prints."""
