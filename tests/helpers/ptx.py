"""Runs compiled kernels without a GPU: an emulator of what Triton's PTX uses, all threads of a grid side by side.

A register is a numpy array with a number for each thread. Threads that a branch separates meet again where their code
does: what runs next is the earliest block that a thread waits at, and where threads exchange values, or meet at a
barrier, they wait for the others of their warp or block. It is stricter than a GPU: what is wrong on some
GPUs or on some days, or would round otherwise than the CPU, is an error here. So it is with an instruction or a
modifier that is not known, a register that nothing was written to, an address outside of the arrays that a launch
got, to read or store again in a launch what it has stored, and a barrier at which a part of a block is missing.

What instructions do is said in NVIDIA's "Parallel Thread Execution ISA".
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Program"]

Mask = NDArray[np.bool_]

WARP = 32
GAP = 4096
"""Bytes between arrays; they start at a multiple of it."""
REGISTERS = {"p": "?", "rs": "u2", "r": "u4", "rd": "u8"}
"""The first letters of registers' names, and what they hold."""
ROUNDING = {"rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil, "rni": np.rint}
COMPARISONS = {
    "eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal
}  # fmt: skip
SAME_TYPE: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "not": np.invert, "abs": np.abs, "neg": np.negative, "mul": np.multiply, "sqrt": np.sqrt,
    "div": lambda a, b: a / b if a.dtype.kind == "f" else quotient(a, b),
    "rem": lambda a, b: a - quotient(a, b) * b,
    "min": lambda a, b: (np.fmin if a.dtype.kind == "f" else np.minimum)(a, b),
    "max": lambda a, b: (np.fmax if a.dtype.kind == "f" else np.maximum)(a, b),
    "popc": np.bitwise_count,
}  # fmt: skip
"""Operations whose operands are of one type."""
INSTRUCTIONS = {
    **dict.fromkeys(("and", "or", "xor", "not", "abs", "neg", "rem", "popc", "min"), ""),
    **dict.fromkeys(("shl", "shr", "bfe", "prmt", "selp", "mov", "ret"), ""),
    "add": "rn", "sub": "rn", "mul": "rn lo hi wide", "mad": "lo wide", "div": "rn ftz", "sqrt": "rn ftz",
    "max": "relu",
    "setp": "eq ne lt le gt ge equ neu ltu leu gtu geu num nan", "cvt": "rn rzi rmi rpi rni ftz",
    "ld": "param global shared cta v2 v4", "st": "global shared cta v2 v4", "atom": "global gpu relaxed max",
    "shfl": "sync bfly", "redux": "sync add min max", "bar": "sync", "bra": "uni",
}  # fmt: skip
"""All that are known, and what modifiers they may have."""


@functools.cache
def numpy_type(name: str) -> np.dtype[Any]:
    """Of s32, u16, f64, b8, pred ..."""
    kind = {"s": "i", "u": "u", "b": "u", "f": "f"}
    return np.dtype(bool) if name == "pred" else np.dtype(f"{kind[name[0]]}{int(name[1:]) // 8}")


@functools.cache
def held_by(register: str) -> np.dtype[Any]:
    return np.dtype(REGISTERS[register.strip("%0123456789")])


@functools.cache
def constant(text: str, dtype: np.dtype[Any]) -> NDArray[Any]:
    text = "0" if text == "global_smem" else text
    bits = int(text[2:], 16) if text.startswith(("0f", "0d")) else int(text, 0)
    value = np.array(bits & (2 ** (8 * dtype.itemsize) - 1), f"u{dtype.itemsize}").view(dtype)
    value.flags.writeable = False
    return value


def quotient(a: Any, b: Any) -> Any:
    """Towards zero; anything where b is 0."""
    b = np.where(b == 0, 1, b)
    size = np.abs(a.astype(np.int64)) // np.abs(b.astype(np.int64))
    return (size * np.sign(a) * np.sign(b)).astype(a.dtype)


def flushed(values: Any) -> Any:
    """Zero for numbers that are too small to be held at full precision."""
    return np.where(np.abs(values) < np.finfo(values.dtype).tiny, np.copysign(values.dtype.type(0), values), values)


def to_integer(values: Any, dtype: np.dtype[Any]) -> Any:
    """Whole floats as the nearest of the type's; what is no number is 0 of a float32, of a float64 the highest bit."""
    info = np.iinfo(dtype)
    low, high, no_number = values <= float(info.min), values >= float(info.max), np.isnan(values)
    within = np.where(low | high | no_number, 0, values).astype(dtype)
    no_value = 0 if values.dtype.itemsize == 4 and dtype.itemsize < 8 else info.min or (info.max >> 1) + 1
    return np.select([no_number, low, high], [dtype.type(no_value), dtype.type(info.min), dtype.type(info.max)], within)


def whole(there: Mask, size: int) -> bool:
    """Whether of each group of threads all are there, or none."""
    groups = there.reshape(-1, size)
    return bool((groups.all(axis=1) | ~groups.any(axis=1)).all())


class Memory:
    """Arrays in one space of addresses.

    Attributes:
        addresses: of the arrays.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = arrays
        starts = np.cumsum([GAP, *(-(-array.nbytes // GAP) * GAP + GAP for array in arrays)])
        self.addresses = [int(start) for start in starts[:-1]]
        self.bytes = np.zeros(starts[-1], np.uint8)
        self.allowed, self.stored, self.marked = (np.zeros(starts[-1], bool) for _ in range(3))
        self.storing = np.zeros(starts[-1], np.int32)
        for array, address in zip(arrays, self.addresses, strict=True):
            assert array.flags.c_contiguous
            self.bytes[address : address + array.nbytes] = array.reshape(-1).view(np.uint8)
            self.allowed[address : address + array.nbytes] = True

    def give_back(self) -> None:
        """Leave in the arrays what they hold now."""
        for array, address in zip(self.arrays, self.addresses, strict=True):
            array.reshape(-1).view(np.uint8)[:] = self.bytes[address : address + array.nbytes]

    def _words(self, addresses: NDArray[np.int64], size: int, *never: Mask) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Memory in words of some bytes, and where in it the addresses are, none of whose words is one of ``never``."""
        if (addresses % size).any() or (addresses < 0).any() or (addresses + size > len(self.bytes)).any():
            raise IndexError("not aligned, or beyond all memory")
        for byte in {0, size - 1}:
            if not self.allowed[addresses + byte].all():
                raise IndexError("outside of all arrays")
            if any(mask[addresses + byte].any() for mask in never):
                raise RuntimeError("threads race for a word")
        return self.bytes.view(f"u{size}"), addresses // size

    def load(self, addresses: NDArray[np.int64], size: int) -> NDArray[Any]:
        words, places = self._words(addresses, size, self.stored, self.marked)
        return words[places]

    def store(self, addresses: NDArray[np.int64], values: NDArray[Any]) -> None:
        size = values.dtype.itemsize
        words, places = self._words(addresses, size, self.stored, self.marked)
        numbers = np.arange(len(addresses), dtype=np.int32)
        self.storing[addresses] = numbers
        if (self.storing[addresses] != numbers).any():
            raise RuntimeError("threads race for a word")
        words[places] = values
        for byte in range(size):
            self.stored[addresses + byte] = True

    def atomic_max(self, addresses: NDArray[np.int64], values: NDArray[np.int32]) -> None:
        words, places = self._words(addresses, 4, self.stored)
        np.maximum.at(words.view(np.int32), places, values)
        for byte in range(4):
            self.marked[addresses + byte] = True


class Threads:
    """A grid while it runs."""

    def __init__(
        self, grid: tuple[int, ...], size: int, memory: Memory, shared: int, parameters: Sequence[int]
    ) -> None:
        blocks = int(np.prod(grid))
        self.count, self.size = blocks * size, size
        self.memory, self.parameters = memory, parameters
        self.shared = np.zeros((blocks, shared), np.uint8)
        self.block = np.arange(self.count) // size
        self.registers: dict[str, Any] = {"%tid.x": (np.arange(self.count) % size).astype(np.uint32)}
        rest = self.block
        for axis, blocks_along in zip("xyz", grid, strict=False):
            self.registers[f"%ctaid.{axis}"] = (rest % blocks_along).astype(np.uint32)
            rest = rest // blocks_along

    def read(self, operand: str, type: str) -> Any:
        """An operand's value for each thread, or the one of all."""
        dtype = numpy_type(type)
        if operand.startswith("%"):
            value = self.registers[operand]
            if value.dtype.itemsize > dtype.itemsize:  # only stores take a part of what a register holds
                value = value.astype(f"u{dtype.itemsize}")
            return value.view(dtype)
        return constant(operand, dtype)

    def write(self, register: str, value: Any, where: Mask) -> None:
        """A shorter value is extended as its type says."""
        if register == "_":
            return
        held = held_by(register)
        if value.dtype.itemsize < held.itemsize:
            value = value.astype(f"{value.dtype.kind}{held.itemsize}")
        value = value.view(held)
        if value.ndim == 0:
            value = np.broadcast_to(value, self.count)
        if not where.all() and register in self.registers:
            value = np.where(where, value, self.registers[register])
        self.registers[register] = value


class Instruction:
    """One line of a program.

    Attributes:
        name: without modifiers.
        types: the modifiers that are types, such as f64 and f32 of cvt.f64.f32.
    """

    def __init__(self, predicate: str, name: str, operands: str) -> None:
        self.text = f"{name} {operands}"
        self.predicate = predicate
        self.name, *words = re.split(r"\.|::", name)
        self.operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^\s,]+", operands)
        self.types = [word for word in words if re.fullmatch(r"[subf](8|16|32|64|16x2)|pred", word)]
        self.modifiers = [word for word in words if word not in self.types]
        if self.name not in INSTRUCTIONS or not set(self.modifiers) <= set(INSTRUCTIONS[self.name].split()):
            raise NotImplementedError(self.text)
        self.do = getattr(self, f"_{self.name}", self._compute)
        rounds = self.name in ("add", "sub", "mul", "div", "sqrt") and self.types[-1][0] == "f"
        if rounds and self.modifiers[:1] != ["rn"]:
            raise NotImplementedError(f"rounds otherwise than the CPU: {self.text}")

    def where(self, threads: Threads, there: Mask) -> Mask:
        """Threads in which it is done, of those that are there."""
        if not self.predicate:
            return there
        holds = threads.registers[self.predicate.strip("@!")]
        return there & (~holds if "!" in self.predicate else holds)

    def _read(self, threads: Threads, *places: int, type: str = "") -> list[Any]:
        return [threads.read(self.operands[place], type or self.types[-1]) for place in places]

    def _compute(self, threads: Threads, where: Mask) -> None:
        sources = range(1, len(self.operands))
        if self.types == ["s16x2"]:
            packed = self._read(threads, *sources, type="b32")
            values = [np.ascontiguousarray(np.broadcast_to(value, threads.count)).view(np.int16) for value in packed]
            return threads.write(self.operands[0], SAME_TYPE[self.name](*values).view(np.uint32), where)
        values = self._read(threads, *sources)
        if "ftz" in self.modifiers:
            result = flushed(SAME_TYPE[self.name](*map(flushed, values)))
        else:
            result = SAME_TYPE[self.name](*values)
        threads.write(self.operands[0], np.maximum(result, 0) if "relu" in self.modifiers else result, where)

    # Operands of several types ---------------------------------------------------------------------------------------

    def _mul(self, threads: Threads, where: Mask) -> None:
        if self.types[-1][0] == "f":
            return self._compute(threads, where)
        a, b = self._read(threads, 1, 2)
        if "lo" in self.modifiers:
            result = a * b
        else:
            assert a.dtype.itemsize <= 4, self.text
            double = f"{a.dtype.kind}{2 * a.dtype.itemsize}"
            result = a.astype(double) * b.astype(double)
            if "hi" in self.modifiers:
                result = (result >> (8 * a.dtype.itemsize)).astype(a.dtype)
        if len(self.operands) == 4:
            (added,) = self._read(threads, 3, type=f"{self.types[-1][0]}{8 * result.dtype.itemsize}")
            result = result + added
        threads.write(self.operands[0], result, where)

    _mad = _mul

    def _shl(self, threads: Threads, where: Mask) -> None:
        (a,), (by,) = self._read(threads, 1), self._read(threads, 2, type="u32")
        bits = 8 * a.dtype.itemsize
        left = self.name == "shl"
        shifted = (np.left_shift if left else np.right_shift)(a, np.minimum(by, bits - 1).astype(a.dtype))
        threads.write(
            self.operands[0], shifted if a.dtype.kind == "i" else np.where(by < bits, shifted, 0).astype(a.dtype), where
        )

    _shr = _shl

    def _bfe(self, threads: Threads, where: Mask) -> None:
        a, start, length = (value.astype(np.uint64) for value in self._read(threads, 1, 2, 3, type="u32"))
        assert self.types == ["u32"], self.text
        threads.write(self.operands[0], ((a >> start) & ((1 << length) - 1)).astype(np.uint32), where)

    def _prmt(self, threads: Threads, where: Mask) -> None:
        a, b = (np.broadcast_to(value, threads.count) for value in self._read(threads, 1, 2))
        eight = np.stack([a, b], axis=1).view(np.uint8)
        selectors = int(self.operands[3].rstrip("U"), 0)
        chosen = [selectors >> 4 * byte & 15 for byte in range(4)]
        assert max(chosen) < 8, self.text  # the others extend signs
        threads.write(self.operands[0], eight[:, chosen].copy().view(np.uint32)[:, 0], where)

    def _selp(self, threads: Threads, where: Mask) -> None:
        chosen = np.where(threads.read(self.operands[3], "pred"), *self._read(threads, 1, 2))
        threads.write(self.operands[0], chosen, where)

    def _setp(self, threads: Threads, where: Mask) -> None:
        (test,), (a, b) = self.modifiers, self._read(threads, 1, 2)
        no_number = np.isnan(a) | np.isnan(b) if a.dtype.kind == "f" else np.zeros(threads.count, bool)
        if test in ("num", "nan"):
            result = no_number == (test == "nan")
        elif test in COMPARISONS:
            result = COMPARISONS[test](a, b) & ~no_number
        else:  # such as gtu: greater, or no number
            result = COMPARISONS[test[:-1]](a, b) | no_number
        threads.write(self.operands[0], result, where)

    def _cvt(self, threads: Threads, where: Mask) -> None:
        target, (value,) = numpy_type(self.types[0]), self._read(threads, 1)
        for word in self.modifiers:
            if word == "ftz":
                value = flushed(value)
            elif word in ROUNDING:
                value = ROUNDING[word](value)
            elif word != "rn":
                raise NotImplementedError(self.text)
        whole_number = value.dtype.kind == "f" and target.kind != "f"
        threads.write(self.operands[0], to_integer(value, target) if whole_number else value.astype(target), where)

    def _mov(self, threads: Threads, where: Mask) -> None:
        target, source = self.operands
        bits = 8 * numpy_type(self.types[0]).itemsize
        if target.startswith("{"):
            parts = target.strip("{} ").split(", ")
            value = threads.read(source, self.types[0])
            for part, low in zip(parts, range(0, bits, bits // len(parts)), strict=True):
                threads.write(part, (value >> low).astype(f"u{bits // 8 // len(parts)}"), where)
        elif source.startswith("{"):
            parts = source.strip("{} ").split(", ")
            values = [threads.read(part, f"b{bits // len(parts)}") for part in parts]
            threads.write(target, np.stack(values, axis=1).view(f"u{bits // 8}")[:, 0], where)
        else:
            threads.write(target, threads.read(source, self.types[0]), where)

    # Memory and other threads ----------------------------------------------------------------------------------------

    def _addresses(self, threads: Threads, operand: int) -> NDArray[np.int64]:
        base, _, offset = self.operands[operand].strip("[] ").partition("+")
        start = threads.read(base.strip(), "u32" if "shared" in self.modifiers else "u64")
        return np.broadcast_to(start.astype(np.int64) + int(offset or "0", 0), threads.count)

    def _ld(self, threads: Threads, where: Mask) -> None:
        dtype = numpy_type(self.types[0])
        if "param" in self.modifiers:
            number = int(self.operands[1].strip("[]").rpartition("_")[2])
            bits = np.full(threads.count, threads.parameters[number], np.uint64)
            return threads.write(self.operands[0], bits.astype(f"u{dtype.itemsize}").view(dtype), where)
        addresses = self._addresses(threads, 1)[where]
        for i, part in enumerate(self.operands[0].strip("{} ").split(", ")):
            value = np.zeros(threads.count, dtype)
            if "shared" in self.modifiers:
                words = threads.shared.view(dtype)
                value[where] = words[threads.block[where], addresses // dtype.itemsize + i]
            else:
                value[where] = threads.memory.load(addresses + i * dtype.itemsize, dtype.itemsize).view(dtype)
            threads.write(part, value, where)

    def _st(self, threads: Threads, where: Mask) -> None:
        addresses = self._addresses(threads, 0)[where]
        for i, part in enumerate(self.operands[1].strip("{} ").split(", ")):
            value = np.broadcast_to(threads.read(part, self.types[0]), threads.count)[where]
            if "shared" in self.modifiers:
                words = threads.shared.view(value.dtype)
                words[threads.block[where], addresses // value.dtype.itemsize + i] = value
            else:
                threads.memory.store(addresses + i * value.dtype.itemsize, value)

    def _atom(self, threads: Threads, where: Mask) -> None:
        assert self.modifiers == ["global", "gpu", "relaxed", "max"] and self.types == ["s32"], self.text
        # What was there before is not written to the register: nobody may ask for it.
        threads.memory.atomic_max(self._addresses(threads, 1)[where], self._read(threads, 2)[0][where])

    def _shfl(self, threads: Threads, where: Mask) -> None:
        assert self.modifiers == ["sync", "bfly"] and whole(where, WARP), self.text
        partner = np.arange(threads.count) ^ int(self.operands[2], 0)
        threads.write(self.operands[0], self._read(threads, 1)[0][partner], where)

    def _redux(self, threads: Threads, where: Mask) -> None:
        assert whole(where, WARP), self.text
        values = self._read(threads, 1)[0].reshape(-1, WARP)
        reduce = SAME_TYPE[self.modifiers[-1]]
        for_warp = np.array(values[:, 0])
        for lane in range(1, WARP):
            for_warp = reduce(for_warp, values[:, lane])
        threads.write(self.operands[0], np.repeat(for_warp, WARP), where)

    def _bar(self, threads: Threads, where: Mask) -> None:
        assert whole(where, threads.size), f"a part of a block is missing at {self.text}"


class Program:
    """A kernel's PTX, of compute capability 7.0 or more.

    Args:
        text: the PTX.
        shared: bytes of shared memory.

    Raises:
        NotImplementedError: it has instructions that are not known here, or round otherwise than the CPU does.
    """

    def __init__(self, text: str, shared: int) -> None:
        self.shared = shared
        self.block_size = int(re.search(r"\.reqntid (\d+)", text)[1])  # type: ignore[index]
        self.lines: list[Instruction] = []
        self.labels: dict[str, int] = {}
        for line in text[text.index("\n{") : text.index("\n}")].splitlines():
            line = line.partition("//")[0].strip()
            if label := re.fullmatch(r"(\$\w+):", line):
                self.labels[label[1]] = len(self.lines)
            elif found := re.fullmatch(r"(@!?%p\d+)?\s*([a-z][\w.:]*)\s*(.*);", line):
                self.lines.append(Instruction(found[1] or "", found[2], found[3]))
            elif line and not re.match(r"[{}]$|\.loc|\.reg", line):
                raise NotImplementedError(line)
        after_jumps = (i + 1 for i, line in enumerate(self.lines) if line.name in ("bra", "ret"))
        self.starts = sorted({0, *self.labels.values(), *after_jumps, len(self.lines)})
        self.groups = {start: self._group(start, end) for start, end in itertools.pairwise(self.starts)}

    def _group(self, start: int, end: int) -> int:
        """The number of threads that must do these lines together."""
        names = {line.name for line in self.lines[start:end]}
        return self.block_size if "bar" in names else WARP if names & {"shfl", "redux"} else 1

    def _next(self, place: NDArray[np.int64]) -> tuple[int, Mask]:
        """The first lines that can be done, and the threads that do them.

        Others of a warp may be at lines further down, from where they jump back.
        """
        start = int(place.min())
        while start < len(self.lines):
            there = place == start
            if self.groups[start] > 1:
                there &= np.repeat(there.reshape(-1, self.groups[start]).all(axis=1), self.groups[start])
            if there.any():
                return start, there
            start = int(place[place > start].min(initial=len(self.lines)))
        raise AssertionError("threads wait for others that do not come")

    def run(self, grid: tuple[int, ...], arguments: Sequence[Any]) -> None:
        """Run a grid.

        Args:
            arguments: arrays, which are changed in place, ints (32 bits) and floats (float32).

        Raises:
            IndexError, RuntimeError, KeyError, AssertionError: the kernel does what it must not do.
        """
        memory = Memory([argument for argument in arguments if isinstance(argument, np.ndarray)])
        addresses = iter(memory.addresses)
        parameters = [
            next(addresses) if isinstance(a, np.ndarray)
            else int(np.float32(a).view(np.uint32)) if isinstance(a, float)
            else a & 0xFFFF_FFFF
            for a in arguments
        ]  # fmt: skip
        # Two more are Triton's own, and point to nothing.
        threads = Threads(grid, self.block_size, memory, self.shared, [*parameters, 0, 0])
        place = np.zeros(threads.count, np.int64)  # the line that each thread is at
        with np.errstate(all="ignore"):
            while place.min() < len(self.lines):
                start, there = self._next(place)
                end = self.starts[self.starts.index(start) + 1]
                place[there] = end
                for line in self.lines[start:end]:
                    where = line.where(threads, there)
                    if line.name == "bra":
                        place[where] = self.labels[line.operands[-1]]
                    elif line.name == "ret":
                        place[where] = len(self.lines)
                    else:
                        line.do(threads, where)
        memory.give_back()
