r"""The state dict inside a .pth file, read by a machine that can do nothing else.

A .pth file describes its tensors in a *pickle*, which is not data but a program for a stack
machine, and that machine's instructions include "import this name" and "call it". Whoever loads
one with an ordinary unpickler runs whatever its author wrote.

Scanning the program first is no defence. Scanner and loader are two readers of the same bytes, and
one byte that they read differently is enough: a frame that ends inside an instruction took a
payload past two well-known scanners (cpython gh-154848). So here the parser *is* the loader. It
knows the 26 instructions of which torch builds a state dict, and names are words that it compares
with a short list (see `torch_objects`). There is nothing for a payload to call.

The program for one tensor, a vector of four float32 (spaces added):

    \x80 2                                 protocol 2: always the first instruction
    c collections OrderedDict  )  R        an empty dict: a name, a tuple, REDUCE
    (                                      MARK: names and tensors, up to `u`
    X norm.weight                            the name
    c torch._utils _rebuild_tensor_v2
    (                                        its arguments:
      ( X storage  c torch FloatStorage        the bytes, as a persistent id: class, member
        X 0  X cpu  K 4  t  Q                  data/0, device, number of elements
      K 0   K 4 \x85   K 1 \x85                offset, shape (4,), strides (1,)
      \x89                                     requires_grad: False
      c collections OrderedDict  )  R          backward hooks: none
    t  R
    u  .                                   SETITEMS; STOP, which must be the last byte

(Left out: `q` and `h`, which put the value on top of the stack into a numbered memo, and get it.)

Source: pickletools in the Python library, which lists every instruction.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from llama_ref.checkpoint.pickle_stack import StackMachine
from llama_ref.checkpoint.torch_objects import (
    PlainDict,
    StridedTensor,
    annotate,
    kind,
    known_name,
    rebuilt,
    storage,
)
from llama_ref.errors import BadFile, LimitExceeded, shown

MAX_BYTES = 16 * 2**20
MAX_INSTRUCTIONS = 2_000_000
MAX_TEXT = 2**16
MAX_TUPLE = 64  # dimensions of an array; a call has six arguments


def read_state_dict(program: bytes, *, file: str | os.PathLike[str]) -> dict[str, StridedTensor]:
    """Run the program of a state dict and return the tensors it describes.

    Parameters
    ----------
    program : bytes
        The archive member `data.pkl`.
    file : path-like
        The archive's name, for messages.

    Returns
    -------
    dict of str to StridedTensor
        By name, in stored order. The numbers are what the file claims: nothing has been compared
        with the bytes that are there.

    Raises
    ------
    BadFile
        Any instruction, name or value that a state dict does not need, one out of place, a key
        given twice, an entry that is not a tensor, or bytes after the end.
    Unsupported
        A tensor of integers, or stored quantised.
    LimitExceeded
        More than 16 MiB, two million instructions, or ten thousand values waiting.
    """
    if len(program) > MAX_BYTES:
        limit, found = f"at most {MAX_BYTES:,} bytes", f"{len(program):,}"
        raise LimitExceeded("data.pkl", expected=limit, found=found, file=file)
    machine = _Machine(program, file)
    state = machine.run()
    if not isinstance(state, PlainDict) or not state:
        raise _not_tensors("what was saved", "a dict of tensors", state, file)
    tensors = {name: value for name, value in state.items() if isinstance(value, StridedTensor)}
    for name in state:
        if name not in tensors:
            raise _not_tensors(f"entry {shown(name)}", "a tensor", state[name], file)
    return tensors


def _not_tensors(what: str, expected: str, found: object, file: str | os.PathLike[str]) -> BadFile:
    """Return the error for a file that holds more or less than a state dict."""
    return BadFile(
        f"data.pkl: {what}",
        expected=expected,
        found=kind(found),
        next_step="save a state dict alone: torch.save(model.state_dict(), path)",
        file=file,
    )


class TupleOfTuples(tuple[object, ...]):
    """A tuple that no tuple may hold: known by its class, since a look at every item takes long."""


class _Machine(StackMachine):
    """The machine with its instructions, each a few lines."""

    def run(self) -> object:
        """Execute until STOP and return the one value that is left."""
        if not self.program.startswith(b"\x80\x02"):
            found = shown(self.program[:2])
            raise self.here().bad("pickle protocol", "2, as torch.save writes it", found)
        self.position = 2
        for _ in range(MAX_INSTRUCTIONS):
            instruction = self.take(1)
            if instruction == b".":
                return self.stop()
            if instruction not in INSTRUCTIONS:
                self.position -= 1
                raise self.here().bad("instruction", "one that torch uses", shown(instruction))
            INSTRUCTIONS[instruction](self)
        raise self.too_many("instructions", MAX_INSTRUCTIONS)

    def stop(self) -> object:
        if len(self.stack) != 1 or self.marks:
            found = f"{len(self.stack)} values, {len(self.marks)} marks"
            raise self.here().bad("STOP", "one value on the stack", found)
        if self.position != len(self.program):
            rest = f"{len(self.program) - self.position} more bytes"
            raise self.here().bad("STOP", "the last byte", rest)
        return self.stack.pop()

    def text(self) -> None:
        n = self.integer(4)
        if n > MAX_TEXT:
            raise self.too_many("bytes of text", MAX_TEXT)
        encoded = self.take(n)
        try:
            self.push(encoded.decode("utf-8"))
        except UnicodeDecodeError:
            raise self.here().bad("text", "UTF-8", shown(encoded)) from None

    def long_integer(self) -> None:
        n = self.integer(1)
        if n > 8:
            raise self.here().bad("an integer", "at most 8 bytes", f"{n}")
        self.push(self.integer(n, signed=True))

    def name(self) -> None:
        module, name = self.line(), self.line()
        self.push(known_name(module, name, self.here()))

    def build_tuple(self, items: list[object]) -> None:
        """Push a tuple; of the tuples in it, none may hold another, so that none grows deep."""
        if len(items) > MAX_TUPLE or any(isinstance(item, TupleOfTuples) for item in items):
            raise self.here().bad("a tuple", f"{MAX_TUPLE} items, two levels at most")
        holds_tuples = any(isinstance(item, tuple) for item in items)
        self.push(TupleOfTuples(items) if holds_tuples else tuple(items))

    def build_short_tuple(self, n: int) -> None:
        self.build_tuple([self.pop() for _ in range(n)][::-1])

    def set_items(self, items: list[object]) -> None:
        target = self.top()
        if not isinstance(target, PlainDict) or len(items) % 2:
            found = f"{kind(target)} and {len(items)} values"
            raise self.here().bad("SETITEMS", "a dict and pairs", found)
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str):
                raise self.here().bad("a key", "text", kind(key))
            if key in target:
                raise self.here().bad(f"key {shown(key)}", "once", "twice")
            target[key] = value

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self.set_items([key, value])

    def load_persistent(self) -> None:
        self.push(storage(self.pop(), self.here()))

    def reduce(self) -> None:
        arguments, name = self.pop(), self.pop()
        self.push(rebuilt(name, arguments, self.here()))

    def build(self) -> None:
        notes = self.pop()
        annotate(self.top(), notes, self.here())


INSTRUCTIONS: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _Machine.mark,  # MARK
    b"X": _Machine.text,  # BINUNICODE
    b"K": lambda machine: machine.push(machine.integer(1)),  # BININT1
    b"M": lambda machine: machine.push(machine.integer(2)),  # BININT2
    b"J": lambda machine: machine.push(machine.integer(4, signed=True)),  # BININT
    b"\x8a": _Machine.long_integer,  # LONG1
    b"\x88": lambda machine: machine.push(True),  # NEWTRUE
    b"\x89": lambda machine: machine.push(False),  # NEWFALSE
    b"c": _Machine.name,  # GLOBAL
    b")": lambda machine: machine.push(()),  # EMPTY_TUPLE
    b"\x85": lambda machine: machine.build_short_tuple(1),  # TUPLE1
    b"\x86": lambda machine: machine.build_short_tuple(2),  # TUPLE2
    b"\x87": lambda machine: machine.build_short_tuple(3),  # TUPLE3
    b"t": lambda machine: machine.build_tuple(machine.pop_to_mark()),  # TUPLE
    b"}": lambda machine: machine.push(PlainDict()),  # EMPTY_DICT
    b"s": _Machine.set_item,  # SETITEM
    b"u": lambda machine: machine.set_items(machine.pop_to_mark()),  # SETITEMS
    b"q": lambda machine: machine.put(machine.integer(1)),  # BINPUT
    b"r": lambda machine: machine.put(machine.integer(4)),  # LONG_BINPUT
    b"h": lambda machine: machine.get(machine.integer(1)),  # BINGET
    b"j": lambda machine: machine.get(machine.integer(4)),  # LONG_BINGET
    b"Q": _Machine.load_persistent,  # BINPERSID
    b"R": _Machine.reduce,  # REDUCE
    b"b": _Machine.build,  # BUILD
}
