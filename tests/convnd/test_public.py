"""The names that ``convnd`` shows."""

import convnd


def test_dir_shows_the_public_names_alone() -> None:
    assert dir(convnd) == sorted(convnd.__all__)
    assert all(hasattr(convnd, name) for name in convnd.__all__)
    assert not [name for name in dir(convnd) if name.startswith("_")]
