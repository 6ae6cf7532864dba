"""MXNet's parameter files are read to the bits of mx.nd.load, and what is wrong in one is said in one line."""

from __future__ import annotations

import io
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.backend import registry
from triptych.utils.errors import TriptychError
from triptych.weights.formats.mxnet_params import read, split_prefixes, write
from triptych.weights.formats.sparse import SparseArray

V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
MODELS = Path(__file__).parents[2] / "../shared/data/models"
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="the folder of strangers' models is not there")
needs_mxnet = pytest.mark.skipif("mxnet" not in registry.installed(), reason="MXNet is not installed")
small = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)
MATRIX = np.array([[0, 1, 0], [2, 0, 3], [0, 0, 0]], np.float32)


@pytest.fixture(scope="module")
def mx() -> Any:
    registry.load("mxnet")
    import mxnet

    return mxnet


def shape(dims: tuple[int, ...]) -> bytes:
    return struct.pack(f"<i{len(dims)}q", len(dims), *dims)


def dense(array: np.ndarray, magic: int = V2, flag: int = 0, dims: tuple[int, ...] | None = None) -> bytes:
    dims = array.shape if dims is None else dims
    return struct.pack("<Ii", magic, 0) + shape(dims) + struct.pack("<iii", 1, 0, flag) + array.tobytes()


def legacy(array: np.ndarray, flag: int = 0) -> bytes:
    """V0: no magic number, dimensions of 32 bits."""
    return struct.pack(f"<I{array.ndim}Iiii", array.ndim, *array.shape, 1, 0, flag) + array.tobytes()


def sparse(storage: int, dims: tuple[int, ...], values: np.ndarray, *indices: np.ndarray) -> bytes:
    described = b"".join(struct.pack("<i", 6) + shape(index.shape) for index in indices)
    raw = values.tobytes() + b"".join(index.tobytes() for index in indices)
    head = struct.pack("<Ii", V2, storage) + shape(values.shape) + shape(dims)
    return head + struct.pack("<iii", 1, 0, 0) + described + raw


ROW_SPARSE = sparse(1, (3, 2), np.ones((2, 2), np.float32), np.array([0, 2]))
CSR = sparse(2, (3, 3), np.float32([1, 2, 3]), np.array([0, 1, 3, 3]), np.array([1, 0, 2]))


def whole(*records: bytes, names: tuple[str | bytes, ...] = ()) -> bytes:
    encoded = [name.encode() if isinstance(name, str) else name for name in names]
    content = struct.pack("<QQQ", 0x112, 0, len(records)) + b"".join(records) + struct.pack("<Q", len(encoded))
    return content + b"".join(struct.pack("<Q", len(name)) + name for name in encoded)


SMALL = whole(dense(VALUES), legacy(VALUES), ROW_SPARSE, CSR, names=("arg:a", "arg:b", "c", "aux:d"))


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Writes bytes into a file and gives its path."""

    def put(content: bytes) -> Path:
        path = tmp_path / "net.params"
        path.write_bytes(content)
        return path

    return put


def complaint_only(value: object) -> str:
    """The identifier of a case: contents are too long for one."""
    return value if isinstance(value, str) else "file"


def refused(path: Path) -> str:
    with pytest.raises(TriptychError) as raised:
        read(path)
    line = str(raised.value)
    assert "\n" not in line
    assert str(path) in line
    return line


def same(left: Any, right: np.ndarray) -> None:
    """The same bits, the same type and the same shape."""
    array = np.asarray(left)
    assert (array.dtype, array.shape, array.tobytes()) == (right.dtype, right.shape, right.tobytes())


# What is read


@pytest.mark.parametrize(
    "record",
    [
        dense(VALUES),
        dense(VALUES, V3),
        legacy(VALUES),
        struct.pack("<I", V1) + shape(VALUES.shape) + struct.pack("<iii", 2, 1, 0) + VALUES.tobytes(),
    ],
    ids=["V2", "V3", "V0", "V1"],
)
def test_every_version_of_an_array_is_read(record: bytes, file: Any) -> None:
    (name, array), *rest = read(file(whole(record, names=("w",)))).items()
    assert (name, rest) == ("w", [])
    same(array, VALUES)


TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?", "<i2", "<u2", "<u4", "<u8")


@pytest.mark.parametrize("flag", range(len(TYPES)))
def test_every_type_is_read_to_the_bit_and_where_it_lies_crooked_too(flag: int, file: Any) -> None:
    values = np.array([[0, 1, 1], [1, 0, 1]], TYPES[flag])
    crooked = dense(np.ones(1, np.uint8), flag=3)
    for array in list(read(file(whole(dense(values, flag=flag), crooked, dense(values, flag=flag)))).values())[::2]:
        same(array, values)
        assert array.flags.aligned
        assert not array.flags.writeable or array.base is None


def test_bfloat16_comes_as_float32_of_the_same_values(file: Any) -> None:
    upper = (np.float32([1.5, -2.25, np.inf, 0.0]).view(np.uint32) >> 16).astype(np.uint16)
    same(read(file(whole(dense(upper, flag=12))))["0"], np.float32([1.5, -2.25, np.inf, 0.0]))


def test_a_scalar_is_read_where_the_shapes_are_numpys(file: Any) -> None:
    same(read(file(whole(dense(np.float32(3), V3))))["0"], np.array(3, np.float32))


def test_sparse_arrays_stay_small_and_become_dense_on_request(file: Any) -> None:
    arrays = read(file(whole(ROW_SPARSE, CSR, names=("rows", "csr"))))
    assert isinstance(arrays["rows"], SparseArray)
    same(arrays["rows"], np.float32([[1, 1], [0, 0], [1, 1]]))
    same(arrays["csr"], MATRIX)


def test_a_stored_shape_that_is_out_of_date_is_not_believed(file: Any) -> None:
    stale = ROW_SPARSE[:8] + shape((7, 2)) + ROW_SPARSE[8 + len(shape((2, 2))) :]
    same(read(file(whole(stale)))["0"], np.float32([[1, 1], [0, 0], [1, 1]]))


def test_large_arrays_are_views_into_the_file(file: Any) -> None:
    path = file(whole(*[dense(np.ones(500_000, np.float32))] * 3, names=("a", "b", "c")))
    tracemalloc.start()
    arrays = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(array.nbytes for array in arrays.values()) == 6_000_000
    assert peak < 100_000


def test_nothing_and_a_list_are_read(file: Any) -> None:
    assert read(file(whole())) == {}
    assert list(read(file(whole(dense(VALUES), dense(VALUES))))) == ["0", "1"]


# NumPy's own files


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def with_shape(sizes: str) -> bytes:
    """An array of float32 whose header has the shape `sizes`, and which has no values."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({sizes}), }}\n".encode()
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header


def archive(*members: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice, which is wanted
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def format_as_mxnet_2_writes_it(storage: str) -> tuple[str, bytes]:
    """With the header of src/serialization/cnpy.cc, in which one description begins inside the other."""
    header = f"{{'descr': '|s{len(storage)}{{'descr': '<i8', 'fortran_order': False, 'shape': (), }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    return "s/format.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + storage.encode()


def sparse_members(storage: str, dims: tuple[int, ...], **parts: np.ndarray) -> list[tuple[str, bytes]]:
    members = [(f"s/{part}.npy", npy(array)) for part, array in (parts | {"shape": np.array(dims)}).items()]
    return [*members, format_as_mxnet_2_writes_it(storage)]


NPZ_CSR = sparse_members(
    "csr", (3, 3), data=np.float32([1, 2, 3]), indptr=np.array([0, 1, 3, 3]), indices=np.array([1, 0, 2])
)


@pytest.mark.parametrize("array", [VALUES, np.asfortranarray(VALUES), VALUES.astype(">f8"), np.array(3.0), np.ones(0)])
def test_numpys_own_files_are_read(array: np.ndarray, file: Any) -> None:
    expected = np.ascontiguousarray(array, array.dtype.newbyteorder("=")).reshape(array.shape)
    same(read(file(npy(array)))["0"], expected)
    arrays = read(file(npz(**{"features.0.weight": array, "b": VALUES})))
    assert list(arrays) == ["features.0.weight", "b"]
    same(arrays["features.0.weight"], expected)


def test_bfloat16_and_sparse_arrays_of_mxnet_2_are_read(file: Any) -> None:
    half = npy(np.array([0x3FC0], np.uint16)).replace(b"<u2", b"<b2")
    arrays = read(file(archive(("h.npy", half), *NPZ_CSR)))
    same(arrays["h"], np.float32([1.5]))
    same(arrays["s"], MATRIX)
    rows = sparse_members("row_sparse", (3, 2), data=np.ones((2, 2)), indices=np.array([0, 2]))
    same(read(file(archive(*rows)))["s"], np.array([[1.0, 1], [0, 0], [1, 1]]))


def test_a_compressed_archive_is_read_and_a_bomb_is_not(file: Any) -> None:
    random = np.random.default_rng(0).normal(size=100)
    same(read(file(archive(("r.npy", npy(random)), compression=zipfile.ZIP_DEFLATED)))["r"], random)
    bomb = file(archive(("zeros.npy", npy(np.zeros(1_000_000))), compression=zipfile.ZIP_DEFLATED))
    assert "unpack to more than 4 times the file" in refused(bomb)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (archive(("a.npy", npy(VALUES)), ("a.npy", npy(VALUES))), "two arrays of the name 'a'"),
        (archive(("a.npy", npy(VALUES)[:-1])), "array 'a', the values of shape (2, 3) and type float32 at byte 128"),
        (archive(("a.npy", npy(VALUES) + b"x")), "followed by 1 bytes more"),
        (archive(("a.npy", npy(np.array(["x"])))), "describes no array of numbers"),
        (archive(("a.npy", b"text")), "the magic number at byte 0"),
        (archive(("a.npy", npy(VALUES)), compression=zipfile.ZIP_LZMA), "compressed in a way"),
        (archive(("a.npy", npy(VALUES))).replace(VALUES.tobytes(), b"?" * 24), "the checksum of 'a.npy' is wrong"),
        (archive(*NPZ_CSR[:3], ("s/shape.npy", npy(np.array([3, 2]))), NPZ_CSR[4]), "a column index outside 0 to 1"),
        (archive(("s/data.npy", npy(np.ones(2))), *NPZ_CSR[1:]), "has values of shape (2,) for 3 columns"),
        (archive(*((f"{index}.npy", b"") for index in range(99))), "its table of contents is too long"),
        (archive(*NPZ_CSR[:4], format_as_mxnet_2_writes_it("coo")), "the format 'coo'"),
        (npy(VALUES).replace(b"(2, 3)", b"(2, 9)"), "needs 72 bytes, 24 are left"),
        (with_shape("1111111111111111111, 3"), "the shape in the header at byte 0 is (1111111111111111111, 3)"),
        (with_shape("2 3"), "is (2 3), expected at most 32 numbers"),
        (with_shape("1," * 33), "expected at most 32 numbers of at most 18 digits"),
        (archive(*NPZ_CSR, ("s.npy", npy(VALUES))), "two arrays of the name 's'"),
    ],
    ids=complaint_only,
)
def test_what_is_wrong_in_numpys_files_is_said(content: bytes, complaint: str, file: Any) -> None:
    assert complaint in refused(file(content))


# What is refused


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b"{}", "the magic number at byte 0 needs 8 bytes, 2 are left"),
        (b"\x89HDF\r\n\x1a\n" + bytes(30), "is no MXNet parameter file: it begins with b'\\x89HDF"),
        (struct.pack("<QQQ", 0x112, 0, 1 << 60), "the number of arrays at byte 16 is 1,152,921,504,606,846,976"),
        (whole(dense(VALUES, dims=(2, 5))), "array 0 of 1, the values of shape (2, 5) and type float32 at byte 64"),
        (whole(dense(VALUES, dims=(2, -3))), "the shape at byte 36 is (2, -3)"),
        (whole(dense(VALUES, dims=(1 << 40, 1 << 40))), "4,835,703,278,458,516,698,824,704 bytes"),
        (whole(dense(VALUES[:0], dims=(0, 1 << 62, 1 << 62))), "which no array can have"),
        (whole(dense(VALUES, dims=())), "no dimensions: the array was saved before it had values"),
        (whole(dense(VALUES, V3, dims=(-1,))), "the shape at byte 36 is (-1,)"),
        (whole(dense(VALUES), dense(VALUES, flag=13)), "array 1 of 2, the type at byte 124 is 13, expected 0 to 12"),
        (
            whole(struct.pack("<II", 0xF993FACB, 0) + bytes(40)),
            "array 0 of 1, the magic number at byte 24 is 0xf993facb",
        ),
        (whole(struct.pack("<Ii", V2, 3) + bytes(40)), "the storage type at byte 28 is 3, expected 0 to 2"),
        (whole(struct.pack("<Ii", V3, 1) + bytes(40)), "the storage type at byte 28 is 1, expected 0"),
        (whole(struct.pack("<Iii", V2, 0, 1 << 30)), "the number of dimensions of the shape at byte 32 is 1073741824"),
        (whole(dense(np.uint8([0, 2]), flag=7)), "are booleans, but not all are 0 or 1"),
        (whole(dense(VALUES), names=("a", "b")), "the number of names at byte 88 is 2, with 1 arrays"),
        (whole(dense(VALUES), dense(VALUES), names=("a", "a")), "is 'a', which another array has"),
        (whole(dense(VALUES), names=(b"\xff",)), "the name at byte 104 is not UTF-8"),
        (whole(dense(VALUES), names=("a\0b",)), "the name at byte 104 holds a zero byte"),
        (SMALL + b"?", "the file, the end at byte 452 is followed by 1 bytes more"),
        (whole(sparse(1, (3, 2), np.ones((2, 2), np.float32), np.array([0, 3]))), "a row index outside 0 to 2"),
        (whole(sparse(1, (3, 2), np.ones((2, 2), np.float32), np.array([1, 1]))), "row indices that do not ascend"),
        (whole(sparse(2, (3,), np.ones(0, np.float32), np.zeros(4, int), np.ones(0, int))), "two dimensions"),
        (
            whole(sparse(2, (3, 3), np.float32([1]), np.array([0, 2, 1, 1]), np.array([0]))),
            "row starts that are not 4 that ascend from 0 to 1",
        ),
    ],
    ids=complaint_only,
)
def test_what_is_wrong_is_said_with_the_array_the_field_and_the_byte(content: bytes, complaint: str, file: Any) -> None:
    assert complaint in refused(file(content))


def test_a_file_cut_off_at_any_byte_is_refused(file: Any) -> None:
    assert len(read(file(SMALL))) == 4
    for length in range(len(SMALL)):
        refused(file(SMALL[:length]))


@pytest.mark.parametrize("path", [Path("nowhere.params"), Path(), Path("a\0b")])
def test_what_is_no_file_is_refused(path: Path) -> None:
    with pytest.raises(TriptychError, match=r"not there|not a file|cannot read"):
        read(path)


def survives(path: Path) -> None:
    """Reads, or raises the one error; the memory stays below ten times the file beside what a few messages take."""
    tracemalloc.start()
    try:
        for array in read(path).values():
            assert isinstance(array, SparseArray) or array.size >= 0
        line = ""
    except TriptychError as error:
        line = str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert "\n" not in line
    assert peak < 10 * path.stat().st_size + 100_000


@small
@given(changes=st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_altered_bytes_give_arrays_or_the_one_error(changes: list[tuple[int, int]], file: Any) -> None:
    content = bytearray(SMALL)
    for at, byte in changes:
        content[at] = byte
    survives(file(bytes(content)))


extreme = st.sampled_from([0, 1, -1, 2, 7, 32, 33, 255, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, -(1 << 63)])


@small
@given(at=st.integers(0, len(SMALL) - 8), code=st.sampled_from("iq"), number=extreme)
def test_altered_fields_give_arrays_or_the_one_error(at: int, code: str, number: int, file: Any) -> None:
    field = struct.pack("<Q", number % (1 << 64))[: struct.calcsize(f"<{code}")]
    survives(file(SMALL[:at] + field + SMALL[at + len(field) :]))


ARCHIVE = archive(("a.npy", npy(VALUES)), *NPZ_CSR)
PACKED = archive(("a.npy", npy(np.random.default_rng(0).normal(size=30))), compression=zipfile.ZIP_DEFLATED)


@small
@given(
    content=st.sampled_from([ARCHIVE, PACKED, npy(VALUES)]),
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 40),
)
def test_altered_archives_give_arrays_or_the_one_error(
    content: bytes, changes: list[tuple[int, int]], cut: int, file: Any
) -> None:
    altered = bytearray(content)
    for at, byte in changes:
        altered[-(at % len(content)) - 1] = byte  # from the end, where the table of contents is
    survives(file(bytes(altered[: len(altered) - cut])))


def test_a_file_of_very_many_arrays_takes_memory_in_proportion(file: Any) -> None:
    names = tuple(str(index) for index in range(20_000))
    survives(file(whole(*[dense(np.ones(1, np.float32))] * 20_000, names=names)))


# What is written


@pytest.mark.parametrize("dtype", TYPES[:8])
def test_what_is_written_is_read_again_to_the_bit(dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    array = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    arrays = {"arg:weight": array, "arg:view": array[:, ::2], "arg:naïve": array.T, "aux:none": array[:0]}
    write(path, arrays)
    again = read(path)
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        same(again[name], np.ascontiguousarray(array))


@pytest.mark.parametrize(
    ("name", "array", "complaint"),
    [
        ("a", np.array(1.0), "no place for 'a' of shape ()"),
        ("a", np.ones(2, complex), "no type for 'a', which is complex128"),
        ("a\0", np.ones(2), "zero byte"),
        ("\ud800", np.ones(2), "not UTF-8"),
    ],
)
def test_what_mxnet_has_no_place_for_is_not_written(name: str, array: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(TriptychError) as raised:
        write(tmp_path / "net.params", {name: array})
    assert complaint in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TriptychError, match="cannot write"):
        write(tmp_path / "file" / "net.params", {"a": VALUES})


def test_prefixes_are_split_into_arguments_and_auxiliary_states() -> None:
    arguments, auxiliary = split_prefixes({"arg:w": VALUES, "aux:m": MATRIX, "features.0.bias": VALUES})
    assert (list(arguments), list(auxiliary)) == (["w", "features.0.bias"], ["m"])
    with pytest.raises(TriptychError, match="'w' is there twice"):
        split_prefixes({"arg:w": VALUES, "v": VALUES, "aux:w": VALUES})


# Against MXNet itself, and strangers' files


@needs_mxnet
def test_mxnet_and_the_reader_agree_on_what_mxnet_writes(mx: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    random = np.random.default_rng(0)
    written = {
        str(np.dtype(code)): mx.nd.array(random.integers(0, 2, (3, 5)), dtype=np.dtype(code)) for code in TYPES[:8]
    }
    written |= {"rows": mx.nd.array([[0, 0], [1, 2], [0, 0]]).tostype("row_sparse")}
    written |= {"csr": mx.nd.array(MATRIX).tostype("csr"), "no rows": mx.nd.sparse.zeros("row_sparse", (3, 2))}
    written |= {"no values": mx.nd.sparse.zeros("csr", (3, 2)), "size 0": mx.nd.array([])}
    mx.nd.save(str(path), written)
    arrays = read(path)
    assert list(arrays) == list(written)
    for name, array in mx.nd.load(str(path)).items():
        same(arrays[name], array.asnumpy())


@needs_mxnet
def test_mxnet_with_the_shapes_of_numpy_writes_what_the_reader_reads(mx: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    with mx.util.np_shape(True), mx.util.np_array(True):
        mx.npx.save(str(path), {"scalar": mx.np.array(3.0), "empty": mx.np.zeros((2, 0)), "a": mx.np.ones((2, 3))})
    arrays = read(path)
    assert [arrays[name].shape for name in ("scalar", "empty", "a")] == [(), (2, 0), (2, 3)]
    same(arrays["scalar"], np.array(3, np.float32))


@needs_mxnet
def test_mxnet_reads_what_is_written_to_the_bit(mx: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.params"
    arrays = {f"arg:{code}": np.array([[0, 1, 1], [1, 0, 1]], code) for code in TYPES[:8]}
    write(path, arrays)
    loaded = mx.nd.load(str(path))
    assert list(loaded) == list(arrays)
    for name, array in loaded.items():
        same(array.asnumpy(), arrays[name])


@needs_models
@pytest.mark.parametrize(
    "path", sorted([*MODELS.glob("*/*.params"), *MODELS.glob("*/*.v0")]), ids=lambda path: path.name
)
def test_strangers_files_are_read(path: Path) -> None:
    arrays = read(path)
    assert arrays
    assert all(np.isfinite(np.asarray(array)).all() for array in arrays.values())


@needs_models
@needs_mxnet
@pytest.mark.parametrize(
    "path", sorted([*MODELS.glob("*/*.params"), *MODELS.glob("*/*.v0")]), ids=lambda path: path.name
)
def test_strangers_files_are_read_to_the_bits_of_mxnet(path: Path, mx: Any) -> None:
    loaded = mx.nd.load(str(path))
    items = loaded.items() if isinstance(loaded, dict) else enumerate(loaded)
    arrays = read(path)
    assert len(arrays) == len(loaded)
    for name, array in items:
        same(arrays[str(name)], array.asnumpy())
