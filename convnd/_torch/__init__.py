"""torch's own kernels by number of axes, with workarounds for their faults: the one place that names them.

Everything else in convnd is written for any number of axes and calls these with at most three.
"""
