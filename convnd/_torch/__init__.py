"""torch's own kernels by number of axes, and what is known of them: the one place that names them.

Everything else in convnd is written for any number of axes and comes here with at most three.
"""
