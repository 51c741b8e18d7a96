"""The JobQueue of one process, in memory: for tests, and for trying things out."""

from modelrepo_runtime.queue.memory.queue import MemoryQueue, memory_queue

__all__ = ["MemoryQueue", "memory_queue"]
