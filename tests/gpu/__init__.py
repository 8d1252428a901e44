"""Everything that only a GPU can show, in one short run: ``python -m tests.gpu --minutes 8 --out DIR``.

Rows are of three sections: *correctness* (the device against the CPU), *waiting* (no step of training or
sampling waits for the device) and *speed* (beside torch's own kernels and other libraries). It runs from the
source tree, on the torch that is there; rows of packages that are missing are skipped by name. A row is
independent of all others, and groups of rows run in processes of their own, so that one that breaks the
device loses no other. ``--device cpu --quick`` proves the script itself where there is no GPU.
"""
