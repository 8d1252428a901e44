"""Laws of every registered format, a new one too: what it writes it reads, and its header says so."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dynunet.data import SUFFIXES, DataOptions, find, load, save
from dynunet.data.formats import FORMATS, KINDS, Format, of_kind, of_path, to_write
from dynunet.data.memory import Cache
from dynunet.data.spec import DataSpec

WRITTEN = [(f, suffix) for f in FORMATS if f.writable for suffix in f.suffixes]
FEW = settings(max_examples=max(settings().max_examples // 10, 1))  # of each of many suffixes
NAMED = pytest.mark.parametrize(("own", "suffix"), WRITTEN, ids=[suffix for _, suffix in WRITTEN])


def spec_of(own: Format, dims: int) -> DataSpec:
    """Of one channel, which every format takes, and values from -1 to 1."""
    stored = {"audio": "FLOAT", "images": "uint8"}.get(own.kind, "float32")
    rate = 8000 if "sample_rate" in own.options else None
    span = None if own.fixed_scale else (-1.0, 1.0)
    return DataSpec(own.kind, dims, 1, stored=stored, sample_rate=rate, range=span)


def drawn(draw: st.DataObject, own: Format) -> tuple[DataSpec, torch.Tensor]:
    dims = draw.draw(st.integers(own.dims.start, min(own.dims.stop - 1, 4)))
    shape = draw.draw(st.tuples(*[st.integers(2, 9)] * dims))
    seed = draw.draw(st.integers(0, 99))
    return spec_of(own, dims), torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@NAMED
@FEW
@given(draw=st.data())
def test_what_is_written_is_read(own: Format, suffix: str, draw: st.DataObject) -> None:
    spec, x = drawn(draw, own)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        save(path, x, spec)
        assert find(folder) == [path]
        loaded = load(path, spec)
        header = loaded.source.header
        assert (header.format, header.kind) == (own, own.kind)
        assert (header.channels, header.shape) == (1, tuple(x.shape[1:]))
        assert loaded.x.shape == x.shape
        if suffix not in own.lossy:
            assert (loaded.x - x).abs().max() <= 1 / 255  # half a step of 8 bits, of a range of 2
            save(Path(folder, f"b{suffix}"), loaded.x, spec, like=loaded.source)
            assert torch.equal(load(Path(folder, f"b{suffix}"), spec).x, loaded.x)


@NAMED
@FEW
@given(draw=st.data())
def test_a_region_is_a_part_of_the_whole(own: Format, suffix: str, draw: st.DataObject) -> None:
    spec, x = drawn(draw, own)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        save(path, x, spec)
        header, cache = own.header(path, DataOptions(spatial_dims=spec.spatial_dims)), Cache(1e9)
        assert own.grid(header, spec) == header.shape
        whole = own.read(header, 0, spec, cache)
        starts = [draw.draw(st.integers(0, n - 1)) for n in header.shape]
        stops = [draw.draw(st.integers(a + 1, n)) for a, n in zip(starts, header.shape, strict=True)]
        part = own.read(header, 0, spec, cache, list(zip(starts, stops, strict=True)))
        assert np.array_equal(part, whole[:, *map(slice, starts, stops)])
        stored = header.numbers.values(own.stored(header, 0, spec, cache))
        np.testing.assert_allclose(stored, whole, atol=1e-6)


@NAMED
def test_an_empty_file_is_refused_with_a_reason(own: Format, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.touch()
    with pytest.raises(ValueError, match=r"cannot be read: .+"):
        load(path, spec_of(own, own.dims.start))


def test_each_name_is_of_one_format() -> None:
    for own in FORMATS:
        for suffix in own.suffixes:
            assert [f for f in FORMATS if f.matches(f"a{suffix}")] == [own]
            assert of_path(Path(f"A{suffix.upper()}")) == own
        assert of_path(Path(f".a{own.suffixes[0]}")) is None


def test_what_is_said_of_kinds_is_what_their_formats_say() -> None:
    assert tuple(SUFFIXES) == KINDS
    for kind in KINDS:
        assert of_kind(kind).kind == kind
        assert to_write(Path(f"a{of_kind(kind).new}")).kind == kind  # new data can be written
    for own in FORMATS:
        for suffix, instead in own.lossy.items():
            assert suffix in own.suffixes
            assert to_write(Path(f"a{instead}")).kind == own.kind
        assert own.options <= set(vars(DataOptions()))
    with pytest.raises(ValueError, match=r"path must end with one of \.wav .* got a\.txt"):
        to_write(Path("a.txt"))
