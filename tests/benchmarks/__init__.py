"""Times and memory beside torch and other libraries: ``python -m tests.benchmarks.conv`` and the others.

Each prints medians and ratios, measured in one process on two threads. A ratio is the other's time over
ours: above 1, ours is faster. No test depends on a time.
"""
