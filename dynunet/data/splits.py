"""The split into examples to train on and examples that are held out.

In this order: a standard split of the files is kept (MNIST's ``t10k``, CIFAR-10's ``test_batch``); image sets
and single files are split by example; classes from sub-folders are split by file within each class; with
other sub-folders, a top-level one is held out or not as a whole, so that a subject's files never fall on
both sides (a file outside of them is one by itself); else by file.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch

from .formats import Header

_FEWEST = 3  # with fewer subjects or files, none is held out


def held_out(
    headers: Sequence[Header],
    entries: Sequence[tuple[int, int]],
    folders: Sequence[str],
    share: float,
    seed: int,
    stratified: bool,
) -> list[bool]:
    """True for each example that is held out.

    Args:
        headers: of the files.
        entries: the file of every example, and its place in the file.
        folders: of every file, the top-level sub-folder, or ``""``.
        share: of the examples to hold out.
        seed: of the choice, which depends on nothing else random.
        stratified: that the sub-folders are classes.
    """
    if share == 0:
        return [False] * len(entries)
    standard = _standard_split(headers)
    if standard is not None:
        return [standard[file] for file, _ in entries]
    strata: dict[str, list[list[int]]] = defaultdict(list)
    for group in _together(headers, entries, folders, stratified):
        file, _ = entries[group[0]]
        strata[folders[file] if stratified else ""].append(group)
    generator = torch.Generator().manual_seed(seed)
    chosen = {i for s in sorted(strata) for i in _some(strata[s], share, generator)}
    return [i in chosen for i in range(len(entries))]


def _standard_split(headers: Sequence[Header]) -> list[bool] | None:
    """True for each file of a test set, where all are of standard data sets and some are not to test with."""
    test = [header.format.in_test_set(header.path) for header in headers]
    standard = all(header.format.standard for header in headers)
    return test if standard and any(test) and not all(test) else None


def _together(
    headers: Sequence[Header], entries: Sequence[tuple[int, int]], folders: Sequence[str], stratified: bool
) -> list[list[int]]:
    """Groups of examples, each of which is held out as a whole or not at all."""
    groups: dict[object, list[int]] = defaultdict(list)
    by_example = len(headers) == 1 or all(header.format.standard for header in headers)
    for i, entry in enumerate(entries):
        file, _ = entry
        by_file = file if stratified else folders[file] or file
        groups[entry if by_example else by_file].append(i)
    return list(groups.values())


def _some(groups: list[list[int]], share: float, generator: torch.Generator) -> list[int]:
    """Members of random groups, about a share of all, at least one group and never most of them."""
    if len(groups) < _FEWEST:
        return []
    wanted = share * sum(map(len, groups))
    chosen: list[int] = []
    # One group is never chosen, so that something is left to train on.
    for g in torch.randperm(len(groups), generator=generator).tolist()[1:]:
        # Rounds to the nearest: a group is taken if that brings the number closer to what is wanted.
        if len(chosen) + len(groups[g]) / 2 <= wanted:
            chosen += groups[g]
    return chosen or min(groups, key=len)
