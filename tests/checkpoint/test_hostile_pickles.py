"""Programs that would run something, if anything ran them: rows 94-112 of bad inputs.

Each must be refused, and more: nothing that it names may run. Three witnesses say so. Every payload
would make a folder, which must not appear; an audit hook of the interpreter sees each import, exec,
opened file and started process; tracemalloc sees what was allocated. That such payloads are alive
is shown too, with the library's own loader.
"""

import contextlib
import pickle
import struct
import sys
import tracemalloc

import pytest

from llama_ref.checkpoint.pth import open_pth
from llama_ref.errors import LlamaRefError
from tests.checkpoint.pth_files import (
    BINPERSID,
    BUILD,
    EMPTY_DICT,
    ORDERED_DICT,
    PROTO,
    REDUCE,
    SETITEM,
    STOP,
    archive,
    integer,
    many,
    name,
    simple_members,
    state_dict,
    storage,
    tensor,
    text,
)

POP, OBJ, NEWOBJ, NEWOBJ_EX, STACK_GLOBAL = b"0", b"o", b"\x81", b"\x92", b"\x93"
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
TENSOR = tensor(storage(), [4])


def call(module, attribute, *arguments):
    """Import a name and call it."""
    return name(module, attribute) + called_with(*arguments)


def called_with(*arguments):
    """Call what is on top of the stack."""
    return many(*arguments) + REDUCE


def alive(folder):
    """Instructions that make the folder when an ordinary loader runs them, by row."""
    path, shell = text(folder), text(f"mkdir '{folder}'")
    python = text(f"__import__('os').mkdir('{folder}')")
    mkdir = name("os", "mkdir")
    bare = text(f"cos\nmkdir\n(V{folder}\ntR.")
    return {
        "B6-94 os.system": call("os", "system", shell),
        "B6-94 posix.system": call("posix", "system", shell),
        "B6-95 subprocess.call": call("subprocess", "call", many(text("mkdir"), path)),
        "B6-95 subprocess.check_output": call(
            "subprocess", "check_output", many(text("mkdir"), path)
        ),
        "B6-96 builtins.eval": call("builtins", "eval", python),
        "B6-96 builtins.exec": call("builtins", "exec", python),
        "B6-96 __builtin__.eval": call("__builtin__", "eval", python),
        "B6-98 getattr of import_module": call(
            "builtins", "getattr", call("importlib", "import_module", text("os")), text("mkdir")
        )
        + called_with(path),
        "B6-98 getattr of __import__": call(
            "builtins", "getattr", call("builtins", "__import__", text("os")), text("mkdir")
        )
        + called_with(path),
        "B6-99 operator.attrgetter": call("operator", "attrgetter", text("mkdir"))
        + called_with(call("importlib", "import_module", text("os")))
        + called_with(path),
        "B6-99 operator.methodcaller": call("operator", "methodcaller", text("mkdir"))
        + called_with(call("pathlib", "Path", path)),
        "B6-100 functools.partial": call("functools", "partial", mkdir, path) + called_with(),
        "B6-100 list of map": call("builtins", "list", call("builtins", "map", mkdir, many(path))),
        "B6-101 timeit.timeit": call("timeit", "timeit", text("pass"), python, integer(0)),
        "B6-103 dotted name": b"\x80\4"
        + text("pathlib")
        + text("Path.mkdir")
        + STACK_GLOBAL
        + called_with(call("pathlib", "Path", path)),
        "B6-105 a pickle in a pickle": call(
            "pickle", "loads", call("_codecs", "encode", bare, text("latin1"))
        ),
        "B6-106 os.makedirs": call("os", "makedirs", path),
        "B6-107 INST": b"(" + path + b"ios\nmkdir\n",
        "B6-107 OBJ": b"(" + mkdir + path + OBJ,
        "B6-108 a name with escapes": b"V\\u006f\\u0073\n"
        + text("mkdir")
        + STACK_GLOBAL
        + called_with(path),
        "B6-108 a name out of the memo": text("os")
        + b"q\0"
        + POP
        + b"h\0"
        + text("mkdir")
        + STACK_GLOBAL
        + called_with(path),
        "B6-109 the result popped": call("os", "mkdir", path) + POP + integer(0),
        "B6-109 in a tuple of sizes": many(integer(4), call("os", "mkdir", path)),
    }


# Names that need a terminal, another system, torch or a file: only that they are refused.
NAMED = {
    94: ["nt.system", "os.popen", "os.execv"],
    95: ["subprocess.Popen", "subprocess.getoutput"],
    97: ["builtins.open", "io.open", "io.FileIO", "_io.FileIO", "__builtin__.file"],
    101: ["runpy.run_path", "profile.run", "cProfile.run", "trace.Trace", "code.interact"],
    102: ["pydoc.pipepager", "pty.spawn", "uuid._get_command_stdout", "pdb.run", "bdb.Bdb"],
    103: ["ctypes.CDLL", "numpy.array", "collections.Counter", "pathlib.Path", "torch.Tensor"],
    104: [
        *("torch.storage._load_from_bytes", "torch.hub.load", "torch.load", "torch.nn.Linear"),
        *("torch.serialization.add_safe_globals", "torch._utils._rebuild_from_type_v2"),
    ],
    105: ["numpy.load", "numpy.testing._private.utils.runstring", "numpy.f2py.crackfortran.myeval"],
    106: [
        *("logging.FileHandler", "zipfile.ZipFile", "shutil.copyfile", "tempfile.mkdtemp"),
        *("urllib.request.urlretrieve", "sqlite3.connect"),
    ],
}


def programs(folder):
    """Whole programs, each with the gadget where a reader might not look."""
    gadget = call("os", "mkdir", text(folder))
    notes = EMPTY_DICT + text("__class__") + gadget + SETITEM
    named = many(text("storage"), name("torch", "FloatStorage"), gadget, text("cpu"), integer(4))
    line = f"V{folder}\n".encode()
    return {
        "B6-107 NEWOBJ": state_dict({"w": name("os", "mkdir") + many(text(folder)) + NEWOBJ}),
        "B6-107 NEWOBJ_EX": state_dict(
            {"w": name("os", "mkdir") + many(text(folder)) + EMPTY_DICT + NEWOBJ_EX}
        ),
        "B6-107 EXT1": state_dict({"w": b"\x82\1"}),
        "B6-107 EXT2": state_dict({"w": b"\x83\1\0"}),
        "B6-107 EXT4": state_dict({"w": b"\x84\1\0\0\0"}),
        "B6-107 PERSID": state_dict({"w": b"Pdata/0\n"}),
        "B6-108 protocol 0": b"cos\nmkdir\n(" + line + b"tR.",
        "B6-108 protocol 0 inside": state_dict({"w": b"cos\nmkdir\n(" + line + b"tR"}),
        "B6-108 a blank after the name": state_dict({"w": b"ctorch._utils \n_rebuild_tensor_v2\n"}),
        "B6-108 CR after the name": state_dict({"w": b"ccollections\r\nOrderedDict\r\n)R"}),
        "B6-108 a name in another case": state_dict({"w": b"cCollections\nordereddict\n)R"}),
        "B6-108 a name beyond ASCII": state_dict({"w": "cоs\nmkdir\n".encode()}),
        "B6-109 at the root": PROTO + gadget + STOP,
        "B6-109 before the state dict": PROTO + gadget + POP + state_dict({"w": TENSOR})[2:],
        "B6-109 before a broken byte": PROTO + gadget + b"\xff" + STOP,
        "B6-109 before the file ends": PROTO + gadget,
        "B6-109 in a second program": state_dict({"w": TENSOR}) + PROTO + gadget + STOP,
        "B6-109 as a key": PROTO + EMPTY_DICT + gadget + TENSOR + SETITEM + STOP,
        "B6-109 in a persistent id": state_dict({"w": tensor(named + BINPERSID, [4])}),
        "B6-109 as a persistent id": state_dict({"w": tensor(gadget + BINPERSID, [4])}),
        "B6-109 as hooks": state_dict({"w": tensor(storage(), [4], hooks=gadget)}),
        "B6-110 BUILD of a dict": state_dict({"w": ORDERED_DICT + notes + BUILD}),
        "B6-110 BUILD of a tensor": state_dict({"w": TENSOR + EMPTY_DICT + BUILD}),
        "B6-110 BUILD of a name": state_dict({"w": REBUILD + EMPTY_DICT + BUILD}),
        "B6-110 BUILD of __setstate__": state_dict(
            {"w": ORDERED_DICT + EMPTY_DICT + text("__setstate__") + REBUILD + SETITEM + BUILD}
        ),
        "B6-110 BUILD with slots": state_dict(
            {"w": ORDERED_DICT + many(EMPTY_DICT, EMPTY_DICT) + BUILD}
        ),
        "B6-112 FRAME in protocol 2": state_dict({"w": b"\x95" + struct.pack("<Q", 9) + gadget}),
        "B6-112 FRAME that ends in an instruction": b"\x80\4\x95"
        + struct.pack("<Q", 6)
        + text("x" * 2**17)
        + POP
        + gadget
        + STOP,
    }


class Witness:
    """What the interpreter did while a file was open: its audit events."""

    def __init__(self):
        self.watching, self.events = False, []
        sys.addaudithook(self.see)  # stays for the life of the process, silent while not watching

    def see(self, event, arguments):
        if self.watching:
            self.events.append((event, arguments))

    def __enter__(self):
        self.events, self.watching = [], True

    def __exit__(self, *_):
        self.watching = False


WITNESS = Witness()


def refused(tmp_path, program):
    """Open a file with this program; it must be refused, without doing or allocating anything."""
    path = tmp_path / "consolidated.00.pth"
    path.write_bytes(archive(simple_members()))
    open_pth(path)  # imports what the first call imports
    path.write_bytes(archive(simple_members(program)))
    tracemalloc.start()
    try:
        with WITNESS, pytest.raises(LlamaRefError) as caught:
            open_pth(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert {event for event, _ in WITNESS.events} == {"open", "mmap.__new__"}
    opened = {arguments[0] for event, arguments in WITNESS.events if event == "open"}
    assert {what for what in opened if not isinstance(what, int)} == {str(path)}
    assert peak < 3 * len(program) + 300_000
    assert len(str(caught.value)) < 1000
    return caught.value


def check_refused(tmp_path, program):
    """The same, and the folder that the payload makes is not there."""
    refused(tmp_path, program)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["consolidated.00.pth"]


@pytest.mark.parametrize("row", alive("x"))
def test_the_payloads_run_in_an_ordinary_loader(tmp_path, row):
    """Each of these programs makes the folder when the library's loader reads it."""
    folder = tmp_path / "made"
    gadget = alive(str(folder))[row]
    with contextlib.suppress(Exception):  # what comes after the payload may fail
        pickle.loads(PROTO + gadget + STOP)
    assert folder.is_dir()


@pytest.mark.parametrize("row", alive("x"))
def test_payloads_are_refused(tmp_path, row):
    """The same programs make nothing here."""
    check_refused(tmp_path, state_dict({"w": alive(str(tmp_path / "made"))[row]}))


@pytest.mark.parametrize("row", programs("x"))
def test_hidden_payloads_are_refused(tmp_path, row):
    """A payload in a place where no honest file has anything makes nothing."""
    check_refused(tmp_path, programs(str(tmp_path / "made"))[row])


@pytest.mark.parametrize(
    "full_name", [pytest.param(n, id=f"B6-{row} {n}") for row in NAMED for n in NAMED[row]]
)
def test_names_are_refused(tmp_path, full_name):
    """Every name but those of a state dict is refused when it is said, called or not."""
    module, _, attribute = full_name.rpartition(".")
    error = refused(tmp_path, state_dict({"w": name(module, attribute)}))
    assert full_name in str(error)
    check_refused(tmp_path, state_dict({"w": call(module, attribute, text("x"))}))


def test_a_module_beside_the_file_is_not_imported(tmp_path, monkeypatch):
    """B6-111: to import a name is to run its module; a folder may hold any module."""
    (tmp_path / "payload_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, state_dict({"w": name("payload_module", "Thing")}))
    assert "payload_module" not in sys.modules
    with pytest.raises(SystemExit, match="imported"):
        pickle.loads(PROTO + name("payload_module", "Thing") + STOP)
