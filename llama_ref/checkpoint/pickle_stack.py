"""A stack machine without instructions: a program to read, a stack, marks in it, a memo.

Everything is bounded, because the program comes from a stranger: it cannot be read past its end,
a value cannot be taken from below a mark, and the stack, the marks and the memo stay small.
`symbolic_pickle` adds the instructions.
"""

from __future__ import annotations

import os

from llama_ref.checkpoint.torch_objects import Place
from llama_ref.errors import LimitExceeded, shown

MAX_STACK = 10_000  # a writer empties the stack into its dict every thousand pairs
MAX_MARKS = 8  # torch nests three
LONGEST_LINE = 100


class StackMachine:
    """The state of a running program.

    Parameters
    ----------
    program : bytes
        The instructions.
    file : path-like
        Where they were read, for messages.
    """

    def __init__(self, program: bytes, file: str | os.PathLike[str]):
        self.program, self.file = program, file
        self.position = 0
        self.stack: list[object] = []
        self.marks: list[int] = []  # the height of the stack at each mark
        self.memo: list[object] = []

    def here(self) -> Place:
        """Return the place in the program, for messages."""
        return Place(self.file, self.position)

    def too_many(self, what: str, limit: int) -> LimitExceeded:
        """Return the error that says which limit was passed."""
        return LimitExceeded(f"data.pkl: {what}", expected=f"at most {limit:,}", file=self.file)

    def take(self, n: int) -> bytes:
        """Read the next n bytes of the program."""
        taken = self.program[self.position : self.position + n]
        if len(taken) != n:
            raise self.here().bad("the rest of an instruction", f"{n} bytes", f"{len(taken)}")
        self.position += n
        return taken

    def integer(self, n: int, *, signed: bool = False) -> int:
        """Read an integer of n bytes, the lowest first."""
        return int.from_bytes(self.take(n), "little", signed=signed)

    def line(self) -> str:
        """Read ASCII text up to the end of the line."""
        end = self.program.find(b"\n", self.position, self.position + LONGEST_LINE + 1)
        text = self.program[self.position : max(end, self.position)]
        if end < 0 or not text.isascii():
            found = shown(self.program[self.position : self.position + LONGEST_LINE])
            raise self.here().bad("a line", f"at most {LONGEST_LINE} ASCII characters", found)
        self.position = end + 1
        return text.decode("ascii")

    def push(self, value: object) -> None:
        """Put a value on top of the stack."""
        if len(self.stack) >= MAX_STACK:
            raise self.too_many("values on the stack", MAX_STACK)
        self.stack.append(value)

    def top(self) -> object:
        """Return the value on top; what lies below a mark is out of reach."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise self.here().bad("an instruction that needs a value", found="an empty stack")
        return self.stack[-1]

    def pop(self) -> object:
        """Remove the value on top and return it."""
        value = self.top()
        self.stack.pop()
        return value

    def mark(self) -> None:
        """Mark the present height of the stack."""
        if len(self.marks) >= MAX_MARKS:
            raise self.too_many("marks", MAX_MARKS)
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list[object]:
        """Remove the last mark and the values above it, and return those."""
        if not self.marks:
            raise self.here().bad("an instruction that needs a mark", found="none")
        height = self.marks.pop()
        values = self.stack[height:]
        del self.stack[height:]
        return values

    def put(self, index: int) -> None:
        """Remember the value on top; a writer numbers its memo 0, 1, 2 and so on."""
        if index != len(self.memo):
            raise self.here().bad("memo", f"number {len(self.memo)} next", f"{index}")
        self.memo.append(self.top())

    def get(self, index: int) -> None:
        """Push a value remembered before."""
        if index >= len(self.memo):
            raise self.here().bad("memo", f"a number below {len(self.memo)}", f"{index}")
        self.push(self.memo[index])
