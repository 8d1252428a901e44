"""One file for each algorithm, with all that is known of it; :mod:`.registry` lists them."""
