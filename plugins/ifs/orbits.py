"""Orbits of iterated function systems by the random iteration algorithm (paper, section 3.1; Barnsley 1988).

A transformation is a row a to f: x' = a x + b y + e, y' = c x + d y + f (paper, equation 2).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8, UInt16, UInt32
from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types, uint8, uint32, uint64
from numba.core import cgutils
from numba.extending import intrinsic

from formulavision.rendering import kernel
from formulavision.rendering.points import scale_to_canvas, widen
from formulavision.rendering.random import philox_blocks

CHAINS = 128
"""Number of chains of an independent orbit. Point i is step i div CHAINS of chain i mod CHAINS."""
BURN_IN = 64
"""Number of steps of each chain of an independent orbit before its points count."""
BLOCK = 8 * CHAINS
BURN_IN_BLOCKS = BURN_IN // 8
_FEATURES = get_host_cpu_features()
_PERMUTES = _FEATURES.get("avx2", False)
"""Whether the processor looks up numbers of a table in one register by one permutation; others compare all rows."""
_LANES = 16 if _FEATURES.get("avx512f") else 8 if _PERMUTES else 4
"""Number of chains in a vector register, and of rows in a lookup table."""


# The published orbit -------------------------------------------------------------------------------------------------


@kernel
def select(
    draws: Float64[np.ndarray, " steps"],
    cumulative: Float64[np.ndarray, " transformations"],
    selection: UInt8[np.ndarray, " steps"],
) -> None:
    """Select a transformation for each step: the first j for which ``draws[i] <= cumulative[j]``.

    Counting the sums below a draw has no branch to mispredict; blocks of it stay in the processor's cache.

    Args:
        draws: random numbers.
        cumulative: cumulative probabilities of the transformations.
        selection: is filled; with the number of transformations where a draw is above all sums.
    """
    # Four sums at a time, so that a block is read and written a quarter as often.
    sums = np.full((len(cumulative) + 3) // 4 * 4, np.inf)
    sums[: len(cumulative)] = cumulative
    for start in range(0, len(selection), 4096):
        block = selection[start : start + 4096]
        values = draws[start : start + 4096]
        block[:] = 0
        for j in range(0, len(sums), 4):
            one, two, three, four = sums[j], sums[j + 1], sums[j + 2], sums[j + 3]
            for i in range(len(block)):
                value = values[i]
                block[i] += (uint8(value > one) + uint8(value > two)) + (uint8(value > three) + uint8(value > four))


@kernel
def published_orbit(
    system: Float64[np.ndarray, "rows 6"],
    selection: UInt8[np.ndarray, " steps"],
    x: Float64[np.ndarray, " points"],
    y: Float64[np.ndarray, " points"],
) -> None:
    """The published orbit: from (0, 0), in float64, in the order x a + y b + e, without fused multiply-add.

    Args:
        system: a to f; the last row is the identity, for a draw above all cumulative probabilities.
        selection: row of each step, from ``select``; at least len(x) - 1.
        x, y: the points, are filled.
    """
    x[0] = y[0] = 0.0
    orbit_from_first(system, selection, x, y)


def _moved_by_columns(typing: Any, columns: Any, row: Any, x: Any, y: Any) -> Any:
    """``_moved(columns, row, x, y)``: equation 2, as x (a, c) + y (b, d) + (e, f) in a register for both coordinates.

    Args:
        columns: (a, c), (b, d), (e, f) of each row, float64 [rows, 3, 2].
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, (_, row, *point) = context.make_array(signature.args[0])(context, builder, arguments[0]).data, arguments
        pair = ir.VectorType(ir.DoubleType(), 2)
        lanes = [ir.IntType(32)(lane) for lane in range(2)]
        first = builder.mul(row, row.type(6))

        def column(number: int) -> Any:
            place = builder.gep(table, [builder.add(first, row.type(2 * number))])
            return builder.load(builder.bitcast(place, pair.as_pointer()), align=8)

        def twice(value: Any) -> Any:
            one = builder.insert_element(ir.Constant(pair, ir.Undefined), value, lanes[0])
            return builder.insert_element(one, value, lanes[1])

        by_x, by_y = (builder.fmul(twice(value), column(number)) for number, value in enumerate(point))
        moved = builder.fadd(builder.fadd(by_x, by_y), column(2))
        return context.make_tuple(
            builder, signature.return_type, [builder.extract_element(moved, lane) for lane in lanes]
        )

    return types.UniTuple(types.float64, 2)(columns, types.uint64, types.float64, types.float64), generate


_moved: Any = intrinsic(_moved_by_columns)


@kernel
def orbit_from_first(
    system: Float64[np.ndarray, "rows 6"],
    selection: UInt8[np.ndarray, " steps"],
    x: Float64[np.ndarray, " points"],
    y: Float64[np.ndarray, " points"],
) -> None:
    """An orbit in float64, in the order x a + y b + e, without fused multiply-add.

    Its steps wait for each other. So its eight parts are computed side by side, those behind the first from (0, 0),
    and then corrected: from the true start of a part the orbit is followed until it meets the computed one; from there
    on both are the same. Where a system contracts, that takes about 150 steps, until rounding makes them equal; where
    it expands, it takes the whole part.

    Args:
        system: a to f.
        selection: row of each step; at least len(x) - 1.
        x, y: the points; the first is where the orbit starts, the others are filled.
    """
    steps = len(x) - 1
    part = steps // 8
    columns = system.reshape(-1, 3, 2).copy()  # of the matrix and the vector: (a, c), (b, d), (e, f)
    columns[:, 0, 1], columns[:, 1, 0] = system[:, 2], system[:, 1]
    # Unsigned, since numba looks for negative indices otherwise. Eight names each, since an array would not stay in
    # registers.
    at1, at2, at3, at4 = uint64(part), uint64(2 * part), uint64(3 * part), uint64(4 * part)
    at5, at6, at7 = uint64(5 * part), uint64(6 * part), uint64(7 * part)
    x0, y0 = x[0], y[0]
    x1 = y1 = x2 = y2 = x3 = y3 = x4 = y4 = x5 = y5 = x6 = y6 = x7 = y7 = 0.0
    for i in range(uint64(part)):
        x0, y0 = _moved(columns, selection[i], x0, y0)
        x1, y1 = _moved(columns, selection[i + at1], x1, y1)
        x2, y2 = _moved(columns, selection[i + at2], x2, y2)
        x3, y3 = _moved(columns, selection[i + at3], x3, y3)
        x4, y4 = _moved(columns, selection[i + at4], x4, y4)
        x5, y5 = _moved(columns, selection[i + at5], x5, y5)
        x6, y6 = _moved(columns, selection[i + at6], x6, y6)
        x7, y7 = _moved(columns, selection[i + at7], x7, y7)
        after = i + uint64(1)
        x[after], x[after + at1], x[after + at2], x[after + at3] = x0, x1, x2, x3
        x[after + at4], x[after + at5], x[after + at6], x[after + at7] = x4, x5, x6, x7
        y[after], y[after + at1], y[after + at2], y[after + at3] = y0, y1, y2, y3
        y[after + at4], y[after + at5], y[after + at6], y[after + at7] = y4, y5, y6, y7
    x[8 * part + 1 :] = np.nan  # steps behind the parts: NaN is equal to no computed point
    for start in range(part, steps + 1, max(part, 1)):
        for i in range(start, steps):
            px, py = _moved(columns, selection[i], x[i], y[i])
            if px == x[i + 1] and py == y[i + 1]:
                break
            x[i + 1] = px
            y[i + 1] = py


# The independent orbit -----------------------------------------------------------------------------------------------


def lookup_tables(
    transformations: Float64[np.ndarray, "n 6"], thresholds: UInt32[np.ndarray, " n-1"]
) -> tuple[Float32[np.ndarray, "tables 6 rows"], UInt16[np.ndarray, " least"]]:
    """A system as the independent orbit takes it.

    Args:
        transformations: a to f.
        thresholds: from ``systems.thresholds``.

    Returns:
        Tables of as many rows as a vector register has numbers, the last one filled up with zeros; and the least draw
        that selects a row or one behind it, for each row but the first, without those that no draw selects.
    """
    rows = np.zeros((-(-len(transformations) // _LANES), _LANES, 6), np.float32)
    rows.reshape(-1, 6)[: len(transformations)] = transformations
    return np.ascontiguousarray(rows.transpose(0, 2, 1)), thresholds[thresholds < 65536].astype(np.uint16)


@kernel
def select_rows(
    least: UInt16[np.ndarray, " least"],
    counter: tuple[int, int, int],
    key: tuple[int, int],
    rows: UInt8[np.ndarray, "blocks 8 chains"],
) -> None:
    """Select the rows of blocks of eight steps.

    Eight steps of a chain take the 16-bit halves of a block of Philox4x32-10, the lower half of word 0 first, for the
    counter (CHAINS (step div 8) + chain, *counter), and compare them with the cumulative probabilities in
    units of 2^-16.

    Args:
        least: from ``lookup_tables``.
        counter, key: of the random numbers, taken modulo 2^32.
        rows: is filled.
    """
    words, draws = np.empty((4, CHAINS), np.uint32), np.empty(BLOCK, np.uint16)
    for n in range(len(rows)):
        first = CHAINS * n
        philox_blocks(
            first, uint32(counter[0]), uint32(counter[1]), uint32(counter[2]), uint32(key[0]), uint32(key[1]), words
        )
        for half in range(8):
            word, some = words[half >> 1], draws[half * CHAINS : half * CHAINS + CHAINS]
            shift = uint32(16) * uint32(half & 1)
            for i in range(len(some)):
                some[i] = (word[i] >> shift) & uint32(0xFFFF)
        block = rows[n].reshape(-1)
        block[:] = 0
        for draw in least:
            for i in range(len(block)):
                block[i] += np.uint8(draws[i] >= draw)


def _step_of_chains(typing: Any, table: Any, first: Any, rows: Any, x: Any, y: Any, start: Any) -> Any:
    """``_step(table, first, rows, x, y, start)``: equation 2 for the chains whose row is ``first`` or behind it.

    With None as ``first`` for all chains, without the masked writes that some processors are slow at.

    Positions ``start`` to ``start + CHAINS`` of x and y are filled from the CHAINS positions before. Written in LLVM's
    instructions, since the compiler makes no permutations from loops in Python, and not always from single extractions.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, rows, x, y = (
            context.make_array(signature.args[n])(context, builder, arguments[n]).data for n in (0, 2, 3, 4)
        )
        first, start, index = arguments[1], arguments[5], arguments[5].type
        of_all = signature.args[1] == types.none
        lanes = [ir.IntType(32)(lane) for lane in range(_LANES)]

        def vector(pointer: Any, place: Any) -> Any:
            kind = ir.VectorType(pointer.type.pointee, _LANES)
            return builder.bitcast(builder.gep(pointer, [place]), kind.as_pointer())

        def build(values: Iterable[Any]) -> Any:
            built = None
            for lane, value in zip(lanes, values, strict=True):
                built = built or ir.Constant(ir.VectorType(value.type, _LANES), ir.Undefined)
                built = builder.insert_element(built, value, lane)
            return built

        def looked_up(column: Any, selected: Any) -> Any:
            if _PERMUTES:
                places = builder.zext(selected, ir.VectorType(ir.IntType(32), _LANES))
                kind = ir.FunctionType(column.type, (column.type, places.type))
                name = "llvm.x86.avx512.permvar.sf.512" if _LANES == 16 else "llvm.x86.avx2.permps"
                return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), (column, places))
            found = column
            for row, lane in enumerate(lanes):
                here = builder.icmp_unsigned("==", selected, ir.Constant(selected.type, [row] * _LANES))
                found = builder.select(here, build([builder.extract_element(column, lane)] * _LANES), found)
            return found

        columns = [builder.load(vector(table, index(_LANES * k)), align=4) for k in range(6)]
        least = build([ir.IntType(8)(0) if of_all else builder.trunc(first, ir.IntType(8))] * _LANES)
        with cgutils.for_range_slice(builder, index(0), index(CHAINS), index(_LANES), index) as (chain, _):
            after = builder.add(start, chain)
            before = builder.sub(after, index(CHAINS))
            row = builder.load(vector(rows, chain), align=1)
            selected = builder.sub(row, least)
            a, b, c, d, e, f = (looked_up(column, selected) for column in columns)
            old_x, old_y = (builder.load(vector(values, before), align=4) for values in (x, y))
            for values, u, v, w in ((x, a, b, e), (y, c, d, f)):
                moved = builder.fadd(builder.fadd(builder.fmul(old_x, u), builder.fmul(old_y, v)), w)
                target = vector(values, after)
                if not of_all:
                    kept = builder.load(target, align=4)
                    moved = builder.select(builder.icmp_unsigned(">=", row, least), moved, kept)
                builder.store(moved, target, align=4)
        return context.get_dummy_value()

    return types.void(table, first, rows, x, y, start), generate


_step: Any = intrinsic(_step_of_chains)


@kernel
def eight_steps(
    tables: Float32[np.ndarray, "tables 6 rows"],
    rows: UInt8[np.ndarray, "8 chains"],
    x: Float32[np.ndarray, " nine_rounds"],
    y: Float32[np.ndarray, " nine_rounds"],
) -> None:
    """Equation 2 for eight steps of all chains.

    Args:
        tables: from ``lookup_tables``.
        rows: from ``select_rows``.
        x, y: the last CHAINS positions are those before the steps, and become the first ones; those after the steps
            follow.
    """
    for i in range(CHAINS):
        x[i], y[i] = x[BLOCK + i], y[BLOCK + i]
    for step in range(8):
        _step(tables[0], None, rows[step], x, y, (step + 1) * CHAINS)
        for table in range(1, len(tables)):
            _step(tables[table], table * _LANES, rows[step], x, y, (step + 1) * CHAINS)


@kernel
def independent_orbit(
    tables: Float32[np.ndarray, "tables 6 rows"],
    least: UInt16[np.ndarray, " least"],
    counter2: int,
    counter3: int,
    key0: int,
    key1: int,
    size: int,
    padding: int,
    columns: UInt16[np.ndarray, " points"],
    rows: UInt16[np.ndarray, " points"],
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """CHAINS orbits side by side, in float32, each from (0, 0) with BURN_IN steps that do not count, on the canvas.

    The orbit is computed twice, first for its bounding box: that is faster than storing it.

    Args:
        tables, least: from ``lookup_tables``.
        counter2, counter3, key0, key1: of the random numbers, see ``select_rows``.
        size, padding: of the canvas, in pixels.
        columns, rows: pixels of the points, are filled; row 0 is the lowest y.

    Returns:
        The bounding box of the points and the origin: low x, high x, low y, high y.
    """
    points = len(columns)
    selected = np.empty((BURN_IN_BLOCKS + (points + BLOCK - 1) // BLOCK, 8, CHAINS), np.uint8)
    select_rows(least, (0, counter2, counter3), (key0, key1), selected)
    x, y = np.zeros(CHAINS + BLOCK, np.float32), np.zeros(CHAINS + BLOCK, np.float32)
    lows, highs = np.zeros((2, CHAINS), np.float32), np.zeros((2, CHAINS), np.float32)
    for block in range(len(selected)):
        eight_steps(tables, selected[block], x, y)
        if block >= BURN_IN_BLOCKS:
            stop = CHAINS + min(BLOCK, points - (block - BURN_IN_BLOCKS) * BLOCK)
            widen(x[CHAINS:stop], lows[0], highs[0])
            widen(y[CHAINS:stop], lows[1], highs[1])
    box = lows[0].min(), highs[0].max(), lows[1].min(), highs[1].max()
    x[:] = 0
    y[:] = 0
    for block in range(len(selected)):
        eight_steps(tables, selected[block], x, y)
        start = (block - BURN_IN_BLOCKS) * BLOCK
        if start >= 0:
            count = min(BLOCK, points - start)
            scale_to_canvas(x[CHAINS:], y[CHAINS:], count, box, size, padding, columns[start:], rows[start:])
    return box
