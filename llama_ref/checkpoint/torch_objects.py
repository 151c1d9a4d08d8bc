"""What a state dict is made of: storages, strided tensors and dicts, as plain records.

In a .pth file these come as names with arguments: `torch._utils._rebuild_tensor_v2` and a tuple
of six. A name here is two words. It is compared with the few written below, and what torch would
have done with the arguments is written out, with every argument checked; nothing is looked up,
imported or called.

Most dtypes have a storage class of their own. Float8 has none: its storage counts bytes, and the
dtype is a seventh argument, of `_rebuild_tensor_v3`.

Source: `_rebuild_tensor_v2`, `_rebuild_tensor_v3` and `_rebuild_parameter` in torch/_utils.py,
`persistent_id` in torch/serialization.py, in pytorch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from llama_ref.errors import BadFile, Unsupported, shown

LARGEST_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Name:
    """A module and a name in it, as two words."""

    module: str
    name: str


@dataclass(frozen=True, slots=True)
class Storage:
    """The bytes behind one or more tensors: the archive member `data/<key>`."""

    key: str
    dtype: str
    n_elements: int


@dataclass(frozen=True, slots=True)
class StridedTensor:
    """A tensor as the file describes it; offset and strides count elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class PlainDict(dict[str, object]):
    """A dict that the file makes."""


class OrderedDict(PlainDict):
    """The kind that torch makes state dicts of."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in which file something was found."""

    file: str | os.PathLike[str]
    position: int

    def bad(self, thing: str, expected: object = None, found: object = None) -> BadFile:
        """Return the error that says what is wrong here."""
        thing = f"data.pkl, byte {self.position}: {thing}"
        return BadFile(thing, expected=expected, found=found, file=self.file)


ORDERED_DICT = Name("collections", "OrderedDict")
REBUILD_TENSOR = Name("torch._utils", "_rebuild_tensor_v2")
REBUILD_FLOAT8 = Name("torch._utils", "_rebuild_tensor_v3")
REBUILD_PARAMETER = Name("torch._utils", "_rebuild_parameter")

DTYPE_OF_STORAGE = {
    Name("torch", "BFloat16Storage"): "bfloat16",
    Name("torch", "HalfStorage"): "float16",
    Name("torch", "FloatStorage"): "float32",
    Name("torch", "DoubleStorage"): "float64",
    Name("torch", "CharStorage"): "int8",
}
BYTES = Name("torch.storage", "UntypedStorage")
FLOAT8 = Name("torch", "float8_e4m3fn")
UNTYPED = "bytes"
"""What a storage holds until a tensor says; a byte is an element of float8."""

KNOWN_NAMES = {
    *(ORDERED_DICT, REBUILD_TENSOR, REBUILD_FLOAT8, REBUILD_PARAMETER),
    *(*DTYPE_OF_STORAGE, BYTES, FLOAT8),
}

INTEGERS = ("Byte", "Short", "Int", "Long", "Bool")
QUANTISED = ("QInt8", "QUInt8", "QInt32", "QUInt4x2", "QUInt2x4")
WITHOUT_STORAGE = (
    *("float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
    *("uint16", "uint32", "uint64"),
)

# What honest files of other kinds contain, so that the message can say what it is.
NOT_READ = {
    **{Name("torch", f"{numbers}Storage"): "integers or booleans" for numbers in INTEGERS},
    **{Name("torch", f"{numbers}Storage"): "quantised numbers" for numbers in QUANTISED},
    Name("torch", "ComplexFloatStorage"): "complex numbers",
    Name("torch", "ComplexDoubleStorage"): "complex numbers",
    **{Name("torch", dtype): "a dtype that no release of Llama has" for dtype in WITHOUT_STORAGE},
    Name("torch._utils", "_rebuild_qtensor"): "a quantised tensor",
    Name("torch._utils", "_rebuild_sparse_tensor"): "a sparse tensor",
    Name("torch._utils", "_rebuild_parameter_with_state"): "a parameter with attributes",
    Name("torch._utils", "_rebuild_from_type_v2"): "a subclass of Tensor",
}


def known_name(module: str, name: str, place: Place) -> Name:
    """Return the name if it is one of those a state dict needs.

    Raises
    ------
    Unsupported
        If torch writes it for something that is read nowhere in this library.
    BadFile
        If it is anything else.
    """
    words = Name(module, name)
    if words in KNOWN_NAMES:
        return words
    said = shown(f"{module}.{name}")
    if words in NOT_READ:
        raise Unsupported(
            f"data.pkl, byte {place.position}: {said}",
            expected="tensors of " + ", ".join([*DTYPE_OF_STORAGE.values(), FLOAT8.name]),
            found=NOT_READ[words],
            file=place.file,
        )
    raise place.bad(f"the name {said}", "only what a state dict of tensors needs")


def kind(value: object) -> str:
    """Say what a value is, without repeating a long or nested one."""
    if isinstance(value, int | str):
        return shown(value)
    if isinstance(value, tuple):
        return f"a tuple of {len(value)}"
    if isinstance(value, PlainDict):
        return f"a dict of {len(value)}"
    nouns: dict[type, str] = {StridedTensor: "a tensor", Storage: "a storage", Name: "a name"}
    return nouns[type(value)]


def number(value: object, what: str, place: Place) -> int:
    """Return a count: an int, not a bool, from 0 to 2^63 - 1."""
    if type(value) is not int or not 0 <= value <= LARGEST_NUMBER:
        raise place.bad(what, "a number from 0 to 2^63 - 1", kind(value))
    return value


def numbers(value: object, what: str, place: Place) -> tuple[int, ...]:
    """Return a tuple of counts."""
    if not isinstance(value, tuple):
        raise place.bad(what, "a tuple", kind(value))
    return tuple(number(item, what, place) for item in value)


def storage(identifier: object, place: Place) -> Storage:
    """Return the storage that a persistent id ("storage", class, key, device, n) stands for."""
    match identifier:
        case ("storage", Name() as storage_class, str(key), str(), n_elements):
            dtype = {**DTYPE_OF_STORAGE, BYTES: UNTYPED}.get(storage_class)
            if dtype is None:
                raise place.bad("the class of a storage", found=shown(storage_class.name))
            n_elements = number(n_elements, "the number of elements of a storage", place)
            return Storage(key, dtype, n_elements)
    raise place.bad("persistent id", '("storage", class, key, device, n)', kind(identifier))


def rebuilt(name: object, arguments: object, place: Place) -> object:
    """Return what torch would make of a name and its arguments."""
    match name, arguments:
        case Name(), () if name == ORDERED_DICT:
            return OrderedDict()
        case Name(), (Storage() as of, at, shape, strides, bool(), OrderedDict() as hooks) if (
            name == REBUILD_TENSOR and of.dtype != UNTYPED and not hooks
        ):
            return _window(of, at, shape, strides, place)
        case (
            Name(),
            (Storage() as of, at, shape, strides, bool(), OrderedDict() as hooks, Name() as dtype),
        ) if name == REBUILD_FLOAT8 and of.dtype == UNTYPED and dtype == FLOAT8 and not hooks:
            return _window(replace(of, dtype=dtype.name), at, shape, strides, place)
        case Name(), (StridedTensor() as tensor, bool(), OrderedDict() as hooks) if (
            name == REBUILD_PARAMETER and not hooks
        ):
            return tensor
    raise place.bad(f"arguments of {kind(name)}", "those that torch writes", kind(arguments))


def _window(of: Storage, at: object, shape: object, strides: object, place: Place) -> StridedTensor:
    """Return the tensor that an offset, a shape and strides cut out of a storage."""
    at = number(at, "the offset of a tensor", place)
    shape = numbers(shape, "the shape of a tensor", place)
    strides = numbers(strides, "the strides of a tensor", place)
    if len(shape) != len(strides):
        raise place.bad("the strides of a tensor", f"{len(shape)}", f"{len(strides)}")
    return StridedTensor(of, at, shape, strides)


def annotate(target: object, notes: object, place: Place) -> None:
    """Accept, and drop, the note that `Module.state_dict` leaves on its result: `_metadata`."""
    is_state_dict = isinstance(target, OrderedDict)
    if not (is_state_dict and isinstance(notes, PlainDict) and list(notes) == ["_metadata"]):
        raise place.bad("attributes", "only _metadata, and of a state dict", kind(notes))
