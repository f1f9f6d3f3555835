"""PyTorch weights files: what is read, what is refused, and that nothing in a file ever runs."""

import builtins
import io
import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch_file_writer as writer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shared_files import PUBLISHED_WEIGHTS, needs

from sspd_jax.checkpoints import torch_reader, torch_writer
from sspd_jax.checkpoints.torch_reader import read_state_dict
from sspd_jax.errors import UserError

FUZZ = settings(max_examples=150, deadline=None, database=None)
WEIGHTS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "norm.running_mean": np.array([0.5, -1.5], np.float64),
    "norm.num_batches_tracked": np.array(90, np.int64),
}


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, strict=True)


def refused(path, *phrases):
    """Read a file that must be refused; check the sentence."""
    with pytest.raises(UserError) as caught:
        read_state_dict(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert "\n" not in sentence
    assert ": " in sentence  # what is wrong: the remedy
    for phrase in phrases:
        assert phrase in sentence
    return sentence


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.pth"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A file for Hypothesis, which may not use a fixture made anew for each test."""
    return tmp_path_factory.mktemp("fuzz") / "weights.pth"


# What is read.


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_every_dtype_keeps_its_values(path, byte_order):
    arrays = {
        dtype: np.array([[0, 1, 2], [3, 100, 1]]).astype(dtype)
        for dtype in torch_writer.STORAGE_NAMES
        if dtype != "bfloat16"
    }
    writer.save(path, arrays, byte_order=byte_order)
    found = read_state_dict(path)
    assert_same(found, arrays)
    assert all(array.dtype.isnative for array in found.values())


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_bfloat16_becomes_float32_exactly(path, byte_order):
    values = np.array([1.0, -2.5, 3.140625, np.inf, 0.0], np.float32)
    writer.save(path, {"x": values.astype(ml_dtypes.bfloat16)}, byte_order=byte_order)
    assert_same(read_state_dict(path), {"x": values})


def test_bool_bytes_become_valid_bools(path):
    stored = torch_writer.storage("BoolStorage", "0", 3)
    description = _file_of(torch_writer.tensor(stored, 0, (3,), (1,)))
    writer.write_archive(path, description, {"0": b"\x00\x01\x07"})
    assert read_state_dict(path)["x"].view(np.uint8).tolist() == [0, 1, 1]


def test_file_without_byte_order_is_little_endian(path):
    writer.save(path, WEIGHTS, byte_order="little")
    description, storages = writer.describe(WEIGHTS)
    writer.write_archive(path, description, storages, byte_order=None)
    assert_same(read_state_dict(path), WEIGHTS)


def test_scalar_empty_and_parameter(path):
    writer.save(
        path,
        {
            "scalar": np.array(7, np.int64),
            "empty": np.zeros((0, 3), np.float32),
            "parameter": writer.Parameter(np.ones(2, np.float32)),
        },
    )
    wanted = {
        "scalar": np.array(7, np.int64),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.ones(2, np.float32),
    }
    assert_same(read_state_dict(path), wanted)


def test_views_of_a_shared_storage(path):
    base = np.arange(24, dtype=np.float32)
    writer.save(
        path,
        {
            "transposed": writer.View(base, 0, (6, 4), (1, 6)),
            "row": writer.View(base, 12, (6,), (1,)),
            "strided": writer.View(base, 1, (2, 3), (12, 2)),
            "one": writer.View(base, 23, (1, 1), (10**30, 10**30)),
        },
    )
    found = read_state_dict(path)
    table = base.reshape(4, 6)
    wanted = {"transposed": table.T, "row": table[2], "strided": table[::2, 1::2], "one": table[3:, 5:]}
    assert_same(found, wanted)
    assert np.shares_memory(found["transposed"], found["row"])
    assert not found["row"].flags.writeable


@pytest.mark.parametrize("key", ["state_dict", "model", "net"])
def test_nested_state_dict(path, key):
    extras = {"epoch": 3, "lr": 1e-3, "momentum": -0.5, "big": 2**70, "args": ["a", (1, None, True)]}
    optimiser = {"state": {0: {"step": np.array(1.0, np.float32)}}}
    writer.save(path, {**extras, "optimizer": optimiser, key: WEIGHTS})
    assert_same(read_state_dict(path), WEIGHTS)


def test_data_parallel_prefix(path):
    writer.save(path, {f"module.{name}": array for name, array in WEIGHTS.items()})
    assert_same(read_state_dict(path), WEIGHTS)


def test_prefix_that_is_not_common_stays(path):
    names = {"module.a": np.ones(1, np.float32), "b": np.ones(1, np.float32)}
    writer.save(path, names)
    assert_same(read_state_dict(path), names)


def test_path_as_string_and_any_archive_name(path):
    writer.save(path, WEIGHTS, name="ubfc")
    assert_same(read_state_dict(str(path)), WEIGHTS)


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_opcodes_of_every_pickle_protocol(path, protocol):
    # Python's own pickler writes the opcodes; persistent ids stand for the tensors.
    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return "tensor" if isinstance(value, np.ndarray) else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol).dump(
        {"state_dict": {"x": np.zeros(2)}, "n": [1, -1, 70000, 2**40, 0.5, None, True, ("é", (), {})]}
    )
    tensor = torch_writer.tensor(torch_writer.storage("FloatStorage", "0", 2), 0, (2,), (1,))
    ours = buffer.getvalue()
    # The id is the pickled string "tensor" and BINPERSID, with or without memo and in short or long form.
    for start in (b"X\x06\x00\x00\x00tensor", b"\x8c\x06tensor"):
        for memo in (b"\x94", b"", *(b"q" + bytes([n]) for n in range(20))):
            marked = start + memo + b"Q"
            if marked in ours:
                # MEMOIZE counts, so the place of the string must be taken by one memoised value.
                ours = ours.replace(marked, tensor + memo)
    # FRAME says how long the next part is; Python allows its absence.
    ours = _without_frame(ours)
    writer.write_archive(path, ours, {"0": np.array([1, 2], "<f4").tobytes()})
    assert_same(read_state_dict(path), {"x": np.array([1, 2], np.float32)})


def _without_frame(description):
    return description[:2] + description[11:] if description[2:3] == b"\x95" else description


@needs(PUBLISHED_WEIGHTS)
def test_published_file():
    found = read_state_dict(PUBLISHED_WEIGHTS)
    learned = [n for n in found if not n.rpartition(".")[2].startswith(("running_", "num_batches"))]
    assert sum(found[name].size for name in learned) == 786_079
    assert all(np.isfinite(array).all() for array in found.values())
    assert found["BN.num_batches_tracked"] == 90  # the S of 30 epochs of three batches


# What is refused: files.


def test_missing_file(path):
    refused(path, "does not exist", "name an existing .pth file")


def test_directory(tmp_path):
    refused(tmp_path, "is a directory", "name the .pth file")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipe_is_refused_and_not_waited_for(path):
    os.mkfifo(path)
    refused(path, "no regular file")


def test_unreadable_file(path, monkeypatch):
    writer.save(path, WEIGHTS)

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    refused(path, "Permission denied", "permissions")


def test_empty_file(path):
    path.write_bytes(b"")
    refused(path, "is empty")


def test_text_file(path):
    path.write_text("<html>404</html>")
    refused(path, "no PyTorch weights file")


def test_legacy_format(path):
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    path.write_bytes(magic + pickle.dumps(1001, protocol=2))
    refused(path, "before PyTorch 1.6", "save it again with torch.save")


def test_other_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<x/>")
    refused(path, "zip without PyTorch weights")


def test_truncated_file_at_every_length(path):
    writer.save(path, WEIGHTS)
    whole = path.read_bytes()
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(path, "copy or download it again" if length > 4 else "torch.save")


@pytest.mark.parametrize("entry", ["weights/data.pkl", "weights/data/0", "weights/byteorder"])
def test_bad_checksum(path, entry):
    writer.save(path, WEIGHTS)
    whole = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo(entry).header_offset
    extra = int.from_bytes(whole[start + 28 : start + 30], "little")
    whole[start + 30 + len(entry) + extra] ^= 1  # the entry's first byte, behind its header
    path.write_bytes(whole)
    refused(path, "damaged", "copy or download it again")


def test_compressed_archive(path):
    writer.save(path, {"x": np.zeros(10**6, np.float32)}, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    refused(path, "compressed")


def test_entries_that_share_their_bytes(path):
    # A bomb without compression: many directory entries point at the same stored bytes.
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", b"\x80\x02}.")
        archive.writestr("weights/data/0", bytes(1000))
        archive.filelist.extend([archive.getinfo("weights/data/0")] * 50)
    refused(path, "it declares")


def test_limits_on_sizes(path, monkeypatch):
    writer.save(path, WEIGHTS)
    monkeypatch.setattr(torch_reader, "MAX_PICKLE_BYTES", 100)
    refused(path, "describes its contents", "save model.state_dict() alone")
    monkeypatch.setattr(torch_reader, "MAX_FILE_BYTES", 100)
    refused(path, "at most", "save model.state_dict() alone")


def test_bad_byte_order(path):
    description, storages = writer.describe(WEIGHTS)
    writer.write_archive(path, description, storages, byte_order=b"middle\n" * 100)
    refused(path, "byte order")


# What is refused: contents.


@pytest.mark.parametrize(
    ("contents", "phrase"),
    [
        ([np.zeros(2, np.float32)], "holds a value of type list"),
        (np.zeros(2, np.float32), "holds a value of type tensor"),
        ({}, "no weights"),
        ({"epoch": 3}, "holds int under 'epoch' where a tensor belongs"),
        ({"a": np.zeros(2, np.float32), "b": None}, "NoneType under 'b'"),
        ({"a": {"b": np.zeros(2, np.float32)}}, "dict under 'a'"),
        ({3: np.zeros(2, np.float32)}, "under '3'"),
        ({"line\nbreak" * 50: "text"}, r"line\nbreak"),
    ],
)
def test_contents_that_are_no_state_dict(path, contents, phrase):
    writer.save(path, contents)
    refused(path, phrase, "save model.state_dict()")


def _file_of(value: bytes) -> bytes:
    """Return the pickle of {"x": value}."""
    return b"\x80\x02}" + torch_writer.string("x") + value + b"s."


@pytest.mark.parametrize(
    ("offset", "size", "stride", "phrase"),
    [
        (0, (5,), (1,), "beyond its storage"),
        (1, (4,), (1,), "beyond its storage"),
        (4, (1,), (1,), "beyond its storage"),
        (0, (2, 2), (3, 1), "beyond its storage"),
        (2**70, (1,), (1,), "beyond its storage"),
        (0, (2**62, 2**62), (0, 0), "more elements"),
        (0, (5,), (0,), "more elements"),
        (0, (0, 2**62), (1, 1), "absurd size"),
        (-1, (1,), (1,), "natural number"),
        (3, (4,), (-1,), "natural number"),
        (0, (-4,), (1,), "natural number"),
        (0, (2, 2), (1,), "do not match"),
        (0, (1,) * 40, (1,) * 40, "do not match"),
    ],
)
def test_tensor_stays_inside_its_storage(path, offset, size, stride, phrase):
    stored = torch_writer.storage("FloatStorage", "0", 4)
    writer.write_archive(path, _file_of(torch_writer.tensor(stored, offset, size, stride)), {"0": bytes(16)})
    refused(path, phrase)


@pytest.mark.parametrize(("length", "size"), [(5, 16), (3, 16), (4, 15), (4, 0), (-1, 16), (2**70, 16)])
def test_storage_of_the_wrong_length(path, length, size):
    stored = torch_writer.storage("FloatStorage", "0", length)
    writer.write_archive(path, _file_of(torch_writer.tensor(stored, 0, (1,), (1,))), {"0": bytes(size)})
    refused(path, "storage 0 has")


def test_missing_storage(path):
    stored = torch_writer.storage("FloatStorage", "../data.pkl", 4)
    writer.write_archive(path, _file_of(torch_writer.tensor(stored, 0, (1,), (1,))))
    refused(path, "storage ../data.pkl is missing")


def test_storage_read_as_two_types(path):
    first, second = (torch_writer.storage(kind, "0", 4) for kind in ("FloatStorage", "IntStorage"))
    values = [torch_writer.tensor(stored, 0, (4,), (1,)) for stored in (first, second)]
    writer.write_archive(path, _file_of(torch_writer.tuple_(*values)), {"0": bytes(16)})
    refused(path, "two types")


# What is refused: pickles that are up to something.


class _Runs:
    """Pickles into a call of any function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def malicious(canary):
    """Return name -> (pickle that creates the canary when run, what it asks for)."""
    text = f"open({str(canary)!r}, 'w').close()"
    command = f"touch {canary}"
    module = torch_writer.call("builtins", "__import__", torch_writer.string("os"))
    system = torch_writer.call("builtins", "getattr", module, torch_writer.string("system"))
    nested = b"\x80\x02" + system + torch_writer.tuple_(torch_writer.string(command)) + b"R."
    build = (
        b"\x80\x02"
        + torch_writer.call("collections", "OrderedDict")
        + b"}"
        + torch_writer.string("__reduce__")
    )
    return {
        "os.system": (pickle.dumps(_Runs(os.system, command), 2), f"{os.system.__module__}.system"),
        "eval": (pickle.dumps(_Runs(builtins.eval, text), 2), "__builtin__.eval"),
        "exec, protocol 4": (pickle.dumps(_Runs(builtins.exec, text), 4), "builtins.exec"),
        "nested getattr": (nested, "builtins.getattr"),
        "dotted": (
            b"\x80\x04"
            + torch_writer.string("collections")
            + torch_writer.string("OrderedDict.__init__")
            + b"\x93.",
            "collections.OrderedDict.__init__",
        ),
        "dotted torch": (b"ctorch\nFloatStorage.from_file\n.", "torch.FloatStorage.from_file"),
        "INST": (b"(" + torch_writer.string(command) + b"ios\nsystem\n.", "os.system"),
        "inside BUILD": (build + pickle.dumps(_Runs(os.system, command), 2)[2:-1] + b"sb.", ".system"),
        "unprintable": (
            b"\x80\x04" + torch_writer.string("os") + torch_writer.string("sys\n\u202etem") + b"\x93.",
            r"os.sys\n\u202etem",
        ),
    }


@pytest.mark.parametrize("name", malicious("/nowhere"))
def test_nothing_in_a_file_runs(path, tmp_path, name):
    canary = tmp_path / "canary"
    description, asked = malicious(canary)[name]
    writer.write_archive(path, description)
    sentence = refused(path, asked)
    assert f"{asked}, and a file of weights never needs that" in sentence
    assert not canary.exists()


def test_the_malicious_pickle_would_run_elsewhere(tmp_path):
    # The canary sings when it should: otherwise the test above would prove nothing.
    canary = tmp_path / "canary"
    pickle.loads(malicious(canary)["eval"][0])
    assert canary.exists()


ORDERED = torch_writer.global_("collections", "OrderedDict")
REBUILD = torch_writer.global_("torch._utils", "_rebuild_tensor_v2")


@pytest.mark.parametrize(
    ("opcodes", "phrase"),
    [
        (b"", "cannot be read"),
        (b".", "takes what is not there"),
        (b"t.", "takes what is not there"),
        (b"q\x00.", "takes what is not there"),
        (b"Ns.", "takes what is not there"),
        (b"h\x05.", "recalls what it never stored"),
        (b"X\xff\xff\xff\xffab.", "cannot be read"),
        (b"\xff.", "cannot be read"),
        (b"\x8a\xff\x01.", "cannot be read"),
        (b"(NNNt\x85R.", "takes what is not there"),
        (b"N)R.", "calls something that is no function"),
        (torch_writer.global_("torch", "FloatStorage") + b")R.", "calls something that is no function"),
        (ORDERED + b"K\x01\x85R.", "wrong arguments"),
        (ORDERED + b"NR.", "wrong arguments"),
        (REBUILD + b")R.", "wrong arguments"),
        (REBUILD + b"(NNNNNNtR.", "wrong types"),
        (torch_writer.call("torch._utils", "_rebuild_parameter", b"N", b"N", b"N") + b".", "holds no tensor"),
        (b"NQ.", "no storage"),
        (torch_writer.tuple_(b"N", b"N", b"N", b"N", b"N") + b"Q.", "no storage"),
        (b"(X\x02\x00\x00\x00osX\x06\x00\x00\x00systemo.", "instruction OBJ"),
        (ORDERED + b")\x81.", "instruction NEWOBJ"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"NN\x93.", "without a name"),
        (b"P1\n.", "instruction PERSID"),
        (b"N2.", "instruction DUP"),
        (b"}(K\x01u.", "has no value"),
        (b"}(NNu.", "neither a string"),
        (b"}()Nu.", "neither a string"),
        (b"}\x8a\x08" + bytes(7) + b"\x40Ns.", "neither a string"),
        (b"}" + ORDERED + b"Ns.", "neither a string"),
    ],
)
def test_malformed_description(path, opcodes, phrase):
    writer.write_archive(path, b"\x80\x02" + opcodes)
    refused(path, phrase)


def nested_tuple(depth: int) -> bytes:
    """Return opcodes of a tuple with 2^depth leaves and no memory: its hash takes for ever."""
    return b")" + b"".join(b"q\x00h\x00\x86" for _ in range(depth))


@pytest.mark.parametrize(
    "description",
    [
        pytest.param(b"\x80\x02}" + nested_tuple(300) + b"Ns.", id="hash of a nested tuple"),
        pytest.param(b"\x80\x02]r\xff\xff\xff\x7f.", id="memo index that reserves 32 GB"),
        pytest.param(b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", id="bytes of an absurd length"),
        pytest.param(b"\x80\x02" + b"(" * 50_000 + b".", id="many marks"),
        pytest.param(b"\x80\x02)" + b"\x85" * 50_000 + b".", id="many levels"),
    ],
)
def test_hostile_description_takes_little_memory(path, description):
    writer.write_archive(path, description)
    tracemalloc.start()
    refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6


# Fuzz: a valid dict of arrays or a UserError, whatever the bytes.


def read_or_refuse(path):
    try:
        found = read_state_dict(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert found
    for name, array in found.items():
        assert isinstance(name, str)
        assert isinstance(array, np.ndarray)
        array.tobytes()  # touches every element
        assert array.nbytes < 10_000


def sample_archive(tmp_file):
    base = np.arange(12, dtype=np.float32)
    views = {"view": writer.View(base, 0, (3, 4), (1, 3)), "same": writer.View(base, 2, (2,), (1,))}
    writer.save(tmp_file, {"epoch": 1, "state_dict": WEIGHTS | views})
    return tmp_file.read_bytes()


EDITS = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), min_size=1, max_size=6)


@FUZZ
@given(edits=EDITS, cut=st.none() | st.integers(1, 2**20))
def test_fuzz_archive(scratch, edits, cut):
    whole = bytearray(sample_archive(scratch))
    for place, value in edits:
        whole[place % len(whole)] = value
    scratch.write_bytes(whole[: cut % len(whole)] if cut else whole)
    read_or_refuse(scratch)


@FUZZ
@given(edits=EDITS)
def test_fuzz_archive_directory(scratch, edits):
    # Most of the file is guarded by checksums; its directory, at the end, is not.
    whole = bytearray(sample_archive(scratch))
    directory = whole.index(b"PK\x01\x02")
    for place, value in edits:
        whole[directory + place % (len(whole) - directory)] = value
    scratch.write_bytes(whole)
    read_or_refuse(scratch)


@FUZZ
@given(edits=EDITS, insert=st.binary(max_size=8), cut=st.integers(0, 2**20))
def test_fuzz_description(scratch, edits, insert, cut):
    description, storages = writer.describe(WEIGHTS)
    whole = bytearray(description)
    for place, value in edits:
        whole[place % len(whole)] = value
    cut %= len(whole)
    writer.write_archive(scratch, bytes(whole[:cut] + insert + whole[cut:]), storages)
    read_or_refuse(scratch)


OPCODES = b"(.0]})tNR\x85\x86\x87\x88\x89\x8a\x93\x94aebsuQcihjqrK\x80IJLMGXV"


@FUZZ
@given(
    st.lists(
        st.sampled_from([bytes([code]) for code in OPCODES])
        | st.binary(max_size=4)
        | st.sampled_from(
            [ORDERED, REBUILD, torch_writer.storage("FloatStorage", "0", 4), torch_writer.string("x")]
        ),
        max_size=40,
    )
)
@example(
    [
        b"}",
        torch_writer.string("x"),
        torch_writer.tensor(torch_writer.storage("FloatStorage", "0", 4), 0, (), ()),
        b"s",
    ]
)
def test_fuzz_opcodes(scratch, opcodes):
    writer.write_archive(scratch, b"\x80\x02" + b"".join(opcodes) + b".", {"0": bytes(16)})
    read_or_refuse(scratch)
