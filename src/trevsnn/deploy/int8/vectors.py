"""SIMD vectors as values in functions that Numba compiles, for loops that LLVM does not vectorise well by itself.

A vector has a fixed number of elements ("lanes") of one type. ``+``, ``-`` and ``*`` work element by element. In float32
every result is rounded: LLVM does not contract a product and a sum into one operation.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import AbstractTemplate, Signature, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

_BIT = ir.IntType(1)


def _built_in(define: Callable[..., Any]) -> Any:
    """A Numba intrinsic. Arguments that are literals reach its definition as literals: lanes have to be known to the types."""
    return intrinsic(prefer_literal=True)(define)


class Vector(types.Type):
    """Numba's type of a vector: the type of its elements and how many it has."""

    def __init__(self, element: Any, lanes: int) -> None:
        self.element, self.lanes = element, lanes
        super().__init__(f"vector({lanes} x {element})")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(manager[kind.element].get_value_type(), kind.lanes))


def _define_operator(symbol: Callable[[Any, Any], Any], integer: str, real: str) -> None:
    @infer_global(symbol)  # pyright: ignore[reportOptionalCall]
    class Operator(AbstractTemplate):
        def generic(self, args: tuple[Any, ...], kws: Any) -> Signature | None:
            return signature(args[0], *args) if isinstance(args[0], Vector) and args[0] == args[-1] else None

    @lower_builtin(symbol, Vector, Vector)
    def lower(_: Any, builder: Any, of: Any, values: Any) -> Any:
        return getattr(builder, real if isinstance(of.return_type.element, types.Float) else integer)(*values)


_define_operator(operator.add, "add", "fadd")
_define_operator(operator.sub, "sub", "fsub")
_define_operator(operator.mul, "mul", "fmul")


def _address(context: Any, builder: Any, kind: Any, array: Any, place: Any, lanes: int) -> tuple[Any, int]:
    """A pointer to the vector that begins at a place of a flat array, and the alignment of its address in bytes."""
    element = context.get_value_type(kind.dtype)
    data = context.make_array(kind)(context, builder, array).data
    pointer = builder.bitcast(builder.gep(data, [place]), ir.VectorType(element, lanes).as_pointer())
    return pointer, kind.dtype.bitwidth // 8


@_built_in
def load(_: Any, array: Any, place: Any, lanes: Any) -> Any:
    """``lanes`` elements of a flat array, from a place on."""
    kind = Vector(array.dtype, lanes.literal_value)

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        pointer, alignment = _address(context, builder, array, values[0], values[1], kind.lanes)
        loaded = builder.load(pointer)
        loaded.align = alignment
        return loaded

    return kind(array, types.intp, lanes), generate


@_built_in
def store(_: Any, array: Any, place: Any, vector: Any) -> Any:
    """Write a vector to a flat array from a place on, cast to the array's type, which has to hold its values."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        pointer, alignment = _address(context, builder, array, values[0], values[1], vector.lanes)
        builder.store(_cast(context, builder, vector, array.dtype, values[2]), pointer).align = alignment
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@_built_in
def broadcast(_: Any, value: Any, lanes: Any) -> Any:
    """A vector of ``lanes`` elements of one value."""
    count = lanes.literal_value

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        kind = ir.VectorType(values[0].type, count)
        one = builder.insert_element(ir.Constant(kind, ir.Undefined), values[0], ir.Constant(ir.IntType(32), 0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), count), [0] * count)
        return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), first)

    return Vector(types.unliteral(value), count)(types.unliteral(value), lanes), generate


@_built_in
def cast(_: Any, vector: Any, to: Any) -> Any:
    """The same values in another type, which has to hold them; fractions are truncated."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        return _cast(context, builder, vector, to.dtype, values[0])

    return Vector(to.dtype, vector.lanes)(vector, to), generate


def _cast(context: Any, builder: Any, vector: Vector, to: Any, value: Any) -> Any:
    source = vector.element
    if source == to:
        return value
    if isinstance(source, types.Float):
        name = "fptosi"
    elif isinstance(to, types.Float):
        name = "sitofp" if source.signed else "uitofp"
    elif to.bitwidth > source.bitwidth:
        name = "sext" if source.signed else "zext"
    else:
        name = "trunc"
    return getattr(builder, name)(value, ir.VectorType(context.get_value_type(to), vector.lanes))


@_built_in
def multiply_add(_: Any, a: Any, b: Any, c: Any) -> Any:
    """``a * b + c`` (FMA), float32, rounded once."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        return _llvm(builder, "fma", *values)

    return a(a, b, c), generate


@_built_in
def round_even(_: Any, vector: Any) -> Any:
    """``round(x)`` to whole numbers, halves to even, float32."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        return _llvm(builder, "rint", *values)

    return vector(vector), generate


@_built_in
def clamp(_: Any, vector: Any, low: Any, high: Any) -> Any:
    """``min(max(x, low), high)``, float32."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        vector, low, high = values
        vector = builder.select(builder.fcmp_ordered("<", vector, low), low, vector)
        return builder.select(builder.fcmp_ordered(">", vector, high), high, vector)

    return vector(vector, low, high), generate


@_built_in
def ones_at_least(_: Any, vector: Any, threshold: Any) -> Any:
    """``1 if x >= threshold else 0``, float32; NaN gives 0."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        spikes = builder.fcmp_ordered(">=", *values)
        return builder.uitofp(spikes, values[0].type)

    return vector(vector, threshold), generate


@_built_in
def bits_above(_: Any, vector: Any, threshold: Any) -> Any:
    """A word of 16 bits, one for each element: bit i is 1 where element i is above the threshold."""
    real = isinstance(vector.element, types.Float)

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        compare = builder.fcmp_ordered if real else builder.icmp_signed
        return builder.bitcast(compare(">", *values), ir.IntType(16))

    return types.uint16(vector, threshold), generate


@_built_in
def compress(_: Any, vector: Any, word: Any) -> Any:
    """The elements, int32, whose bits in the word are 1, one after the other; the rest of the vector is undefined."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        kind = values[0].type
        mask = ir.VectorType(_BIT, kind.count)
        function = ir.FunctionType(kind, [kind, mask, kind])
        compress = cgutils.get_or_insert_function(
            builder.module, function, f"llvm.experimental.vector.compress.v{kind.count}i32"
        )
        return builder.call(compress, [values[0], builder.bitcast(values[1], mask), ir.Constant(kind, ir.Undefined)])

    return vector(vector, word), generate


@_built_in
def count_ones(_: Any, word: Any) -> Any:
    """How many bits of a word are 1 (population count), int64."""

    def generate(context: Any, builder: Any, of: Any, values: Any) -> Any:
        return builder.zext(builder.ctpop(values[0]), ir.IntType(64))

    return types.int64(word), generate


def _llvm(builder: Any, name: str, *values: Any) -> Any:
    """A call of one of LLVM's intrinsic functions on float32 vectors."""
    kind = values[0].type
    function = ir.FunctionType(kind, [kind] * len(values))
    return builder.call(
        cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.v{kind.count}f32"), values
    )
