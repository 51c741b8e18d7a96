"""The rules of the queue, written once against named statements for every database."""
