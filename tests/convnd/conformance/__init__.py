"""Conformance with independent implementations: torch's own test cases, JAX, SciPy and ONNX.

Every suite yields ``(name, check)`` pairs; ``check()`` raises where convnd differs. The tests run a part
of the long suites, and all of them in the thorough profile; ``python -m tests.convnd.conformance`` runs
everything and prints how many cases of each suite passed.
"""
