"""The algorithms, one self-contained file each; :mod:`.registry` lists them."""
