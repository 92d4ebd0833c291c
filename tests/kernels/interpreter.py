"""Our kernels on CPU: Triton's interpreter, chosen early enough and with bfloat16 made right.

`triton.jit` decides when a function is defined whether it is compiled or interpreted, and that goes
for Triton's own library (`tl.sum`), too. So the first import of Triton in a test process and the
first import of our kernels happen here, with ``TRITON_INTERPRET`` set, and only then: servers that
other tests start do not inherit it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Iterator

VARIABLE = "TRITON_INTERPRET"

KERNEL_MODULES = (
    "moltc_kernels.triton_runtime",
    "moltc_kernels.aggregate.triton",
    "moltc_kernels.readout.triton",
    "moltc_kernels.cross_attention.triton",
    "moltc_kernels.gin_stack.molecule_kernel",
    "moltc_kernels.gin_stack.triton",
)


@contextlib.contextmanager
def interpreting() -> Iterator[None]:
    """Functions that are decorated inside are interpreted."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def import_triton() -> None:
    """Import Triton, interpreted; without torch, in half a second."""
    with interpreting():
        # Triton imports gluon at its first launch, and gluon wants to be told the same.
        for name in ("triton", "triton.language", "triton.experimental.gluon"):
            importlib.import_module(name)
    check_interpreted(sys.modules["triton.language"].sum)


@functools.cache  # once: a module's names are others after its first launch
def import_kernels() -> None:
    """Import every module of ours that defines a kernel, interpreted, and repair bfloat16."""
    import_triton()
    repair_bfloat16()
    with interpreting():
        for name in KERNEL_MODULES:
            module = importlib.import_module(name)
            for function in vars(module).values():
                if type(function).__module__.startswith("triton.runtime"):
                    check_interpreted(function)


def check_interpreted(function: object) -> None:
    """Fail if a kernel was defined before the interpreter was chosen."""
    kind = type(function).__name__
    assert kind == "InterpretedFunction", f"{function} was imported too early: it is a {kind}"


def repair_bfloat16() -> None:
    """Replace the interpreter's bfloat16 casts and products (Triton 3.9), which are wrong.

    It keeps bfloat16 as the upper 16 bits of a float32 in unsigned integers, truncates where the
    hardware rounds to nearest even, and multiplies the bits as integers in `tl.dot`.
    """
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    builder, handle = interpreter.InterpreterBuilder, interpreter.TensorHandle
    if getattr(builder, "moltc_bfloat16", False):
        return
    cast_before, convert_before, dot_before = (
        builder.cast_impl,
        builder.create_fp_to_fp,
        builder.create_dot,
    )

    def widen(source):
        if source.dtype.scalar != tl.bfloat16:
            return source
        bits = np.asarray(source.data).astype(np.uint32) << 16
        return handle(bits.view(np.float32), tl.float32)

    def narrow(source):
        values = np.ascontiguousarray(source.data, np.float32)
        bits = values.view(np.uint32)
        nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        rounded = np.where(np.isnan(values), 0x7FC0, nearest_even).astype(np.uint16)
        return handle(rounded, tl.bfloat16)

    def cast(self, source, dtype):
        is_bfloat16 = source.dtype.scalar == tl.bfloat16
        if dtype.scalar == tl.bfloat16:
            return source if is_bfloat16 else narrow(source)
        # Not skipped where the types agree: a comparison's type says int32 and its data is bool.
        return cast_before(self, widen(source), dtype)

    def convert(self, source, dtype, rounding):
        if tl.bfloat16 in (source.dtype.scalar, dtype.scalar):
            return cast(self, source, dtype)
        return convert_before(self, source, dtype, rounding)

    def dot(self, a, b, accumulator, precision, imprecise):
        return dot_before(self, widen(a), widen(b), accumulator, precision, imprecise)

    builder.cast_impl, builder.create_fp_to_fp, builder.create_dot = cast, convert, dot
    builder.moltc_bfloat16 = True
