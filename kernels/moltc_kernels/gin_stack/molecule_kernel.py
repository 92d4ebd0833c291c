"""Kernel that computes all GIN layers of one molecule per program; launched by `fused`."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def gin_molecule_kernel(  # type: ignore[no-untyped-def]
    atoms_ptr,  # [V, 3]
    bond_offsets_ptr,  # [V + 1]
    source_ptr,  # [E]
    code_ptr,  # [E]
    molecule_offsets_ptr,  # [B + 1]
    atom_table_ptr,  # [types * CHIRALITIES, WIDTH], WIDTH = LEFT + RIGHT
    detail_table_ptr,  # [detail codes, WIDTH]; not read unless HAS_DETAILS
    bond_tables_ptr,  # [LAYERS, CODES, WIDTH]
    up_ptr,  # [LAYERS, WIDTH, INNER]
    up_bias_ptr,  # [LAYERS, INNER]
    down_ptr,  # [LAYERS, INNER, WIDTH]
    down_bias_ptr,  # [LAYERS, WIDTH]
    out_ptr,  # [V, STRIDE]
    LAYERS: tl.constexpr,
    STRIDE: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    INNER: tl.constexpr,
    CODES: tl.constexpr,
    CHIRALITIES: tl.constexpr,
    HAS_DETAILS: tl.constexpr,
    SELF_LOOP: tl.constexpr,
    PRECISION: tl.constexpr,
    TILES: tl.constexpr,
    BLOCK_ATOMS: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
):
    """Compute all layers of one molecule per program.

    ``h`` holds the states of the first tile of atoms and ``g`` those of the second, each as a left
    and a right block of columns (300 = 256 + 44 of 64). Products accumulate in float32; states are
    stored in the weights' dtype.
    """
    WIDTH: tl.constexpr = LEFT + RIGHT
    dtype = up_ptr.dtype.element_ty
    molecule = tl.program_id(0).to(tl.int64)
    first = tl.load(molecule_offsets_ptr + molecule).to(tl.int64)
    end = tl.load(molecule_offsets_ptr + molecule + 1).to(tl.int64)
    tiles = tl.cdiv(end - first, BLOCK_ATOMS) if TILES == 2 else 1
    left = tl.arange(0, LEFT)
    right = LEFT + tl.arange(0, RIGHT)
    codes = tl.arange(0, CODES)

    h_left = embed(
        atoms_ptr,
        atom_table_ptr,
        detail_table_ptr,
        first,
        end,
        left,
        CHIRALITIES,
        HAS_DETAILS,
        WIDTH,
        BLOCK_ATOMS,
    )
    h_right = embed(
        atoms_ptr,
        atom_table_ptr,
        detail_table_ptr,
        first,
        end,
        right,
        CHIRALITIES,
        HAS_DETAILS,
        WIDTH,
        BLOCK_ATOMS,
    )
    if TILES == 2:
        second = first + BLOCK_ATOMS
        g_left = embed(
            atoms_ptr,
            atom_table_ptr,
            detail_table_ptr,
            second,
            end,
            left,
            CHIRALITIES,
            HAS_DETAILS,
            WIDTH,
            BLOCK_ATOMS,
        )
        g_right = embed(
            atoms_ptr,
            atom_table_ptr,
            detail_table_ptr,
            second,
            end,
            right,
            CHIRALITIES,
            HAS_DETAILS,
            WIDTH,
            BLOCK_ATOMS,
        )

    for layer in range(LAYERS):
        table = bond_tables_ptr + layer * CODES * WIDTH + codes[:, None] * WIDTH
        up = up_ptr + layer * WIDTH * INNER
        up_bias = up_bias_ptr + layer * INNER
        down = down_ptr + layer * INNER * WIDTH
        down_bias = down_bias_ptr + layer * WIDTH
        # The last layer has no ReLU: a lower bound of -inf changes nothing.
        lower_bound = tl.where(layer == LAYERS - 1, float("-inf"), 0.0)
        y_left, y_right = h_left, h_right
        next_left, next_right = h_left, h_right
        for tile in range(tiles):
            # The matrices are recomputed in every layer: keeping them would spill registers.
            from_h, from_g, histogram = count_bonds(
                bond_offsets_ptr,
                source_ptr,
                code_ptr,
                first,
                tile,
                end,
                SELF_LOOP,
                CODES,
                BLOCK_ATOMS,
            )
            histogram = histogram.to(dtype)
            x_left = tl.dot(histogram, tl.load(table + left[None, :]), input_precision=PRECISION)
            x_right = tl.dot(histogram, tl.load(table + right[None, :]), input_precision=PRECISION)
            x_left = tl.dot(from_h.to(dtype), h_left, x_left, input_precision=PRECISION)
            x_right = tl.dot(from_h.to(dtype), h_right, x_right, input_precision=PRECISION)
            if TILES == 2:
                x_left = tl.dot(from_g.to(dtype), g_left, x_left, input_precision=PRECISION)
                x_right = tl.dot(from_g.to(dtype), g_right, x_right, input_precision=PRECISION)
            y_left, y_right = two_layers(
                x_left.to(dtype),
                x_right.to(dtype),
                up,
                up_bias,
                down,
                down_bias,
                lower_bound,
                INNER,
                BLOCK_INNER,
                PRECISION,
            )
            # The second tile still reads this layer's input, so the first result is kept aside.
            next_left = tl.where(tile == 0, y_left, next_left)
            next_right = tl.where(tile == 0, y_right, next_right)
        h_left, h_right = next_left, next_right
        if TILES == 2:
            g_left, g_right = y_left, y_right

    store(out_ptr, h_left, first, end, left, STRIDE, BLOCK_ATOMS)
    store(out_ptr, h_right, first, end, right, STRIDE, BLOCK_ATOMS)
    if TILES == 2:
        store(out_ptr, g_left, second, end, left, STRIDE, BLOCK_ATOMS)
        store(out_ptr, g_right, second, end, right, STRIDE, BLOCK_ATOMS)


@triton.jit
def embed(  # type: ignore[no-untyped-def]
    atoms_ptr,
    table_ptr,
    detail_table_ptr,
    first,
    end,
    column,
    CHIRALITIES: tl.constexpr,
    HAS_DETAILS: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK_ATOMS: tl.constexpr,
):
    """Load columns of the initial states of a tile's atoms; zeros after the molecule's end.

    A state is the atom's row of the atom table, plus its row of the detail table if there is one.
    """
    atom = first + tl.arange(0, BLOCK_ATOMS)
    mask = atom < end
    atom_type = tl.load(atoms_ptr + atom * 3, mask=mask, other=0).to(tl.int64)
    chirality = tl.load(atoms_ptr + atom * 3 + 1, mask=mask, other=0).to(tl.int64)
    offset = (atom_type * CHIRALITIES + chirality)[:, None] * WIDTH + column[None, :]
    state = tl.load(table_ptr + offset, mask=mask[:, None], other=0.0)
    if HAS_DETAILS:
        detail = tl.load(atoms_ptr + atom * 3 + 2, mask=mask, other=0).to(tl.int64)
        offset = detail[:, None] * WIDTH + column[None, :]
        details = tl.load(detail_table_ptr + offset, mask=mask[:, None], other=0.0)
        state = (state.to(tl.float32) + details.to(tl.float32)).to(state.dtype)
    return state


@triton.jit
def count_bonds(  # type: ignore[no-untyped-def]
    offsets_ptr,
    source_ptr,
    code_ptr,
    first,
    tile,
    end,
    SELF_LOOP: tl.constexpr,
    CODES: tl.constexpr,
    BLOCK_ATOMS: tl.constexpr,
):
    """Count the bonds to each atom of a tile, by source atom and by bond code.

    Self loops are counted as bonds. The counts are small integers, which half precision represents
    exactly.

    Returns:
        Counts by source in the first tile and by source in the second tile, both
        ``[BLOCK_ATOMS, BLOCK_ATOMS]``, and by code, ``[BLOCK_ATOMS, CODES]``; float32.
    """
    local = tl.arange(0, BLOCK_ATOMS)
    codes = tl.arange(0, CODES)
    atom = first + tile * BLOCK_ATOMS + local
    in_first = first + local
    in_second = in_first + BLOCK_ATOMS
    mask = atom < end
    from_first = ((atom[:, None] == in_first[None, :]) & mask[:, None]).to(tl.int32)
    from_second = ((atom[:, None] == in_second[None, :]) & mask[:, None]).to(tl.int32)
    histogram = ((codes[None, :] == SELF_LOOP) & mask[:, None]).to(tl.int32)
    begin = tl.load(offsets_ptr + atom, mask=mask, other=0)
    stop = tl.load(offsets_ptr + atom + 1, mask=mask, other=0)
    for step in range(tl.max(stop - begin, axis=0)):
        has_bond = begin + step < stop
        source = tl.load(source_ptr + begin + step, mask=has_bond, other=0)
        code = tl.load(code_ptr + begin + step, mask=has_bond, other=0)
        from_first += ((source[:, None] == in_first[None, :]) & has_bond[:, None]).to(tl.int32)
        from_second += ((source[:, None] == in_second[None, :]) & has_bond[:, None]).to(tl.int32)
        histogram += ((code[:, None] == codes[None, :]) & has_bond[:, None]).to(tl.int32)
    return from_first.to(tl.float32), from_second.to(tl.float32), histogram.to(tl.float32)


@triton.jit
def two_layers(  # type: ignore[no-untyped-def]
    x_left,  # [BLOCK_ATOMS, LEFT]
    x_right,  # [BLOCK_ATOMS, RIGHT]
    up,  # [LEFT + RIGHT, INNER]
    up_bias,  # [INNER]
    down,  # [INNER, LEFT + RIGHT]
    down_bias,  # [LEFT + RIGHT]
    lower_bound,
    INNER: tl.constexpr,
    BLOCK_INNER: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute ``max(relu(x up + up_bias) down + down_bias, lower_bound)``.

    Only BLOCK_INNER columns of the hidden state exist at a time.
    """
    ROWS: tl.constexpr = x_left.shape[0]
    LEFT: tl.constexpr = x_left.shape[1]
    RIGHT: tl.constexpr = x_right.shape[1]
    WIDTH: tl.constexpr = LEFT + RIGHT
    dtype = x_left.dtype
    left = tl.arange(0, LEFT)
    right = LEFT + tl.arange(0, RIGHT)
    y_left = tl.zeros([ROWS, LEFT], tl.float32)
    y_right = tl.zeros([ROWS, RIGHT], tl.float32)
    for start in range(0, INNER, BLOCK_INNER):
        unit = start + tl.arange(0, BLOCK_INNER)
        up_left = tl.load(up + left[:, None] * INNER + unit[None, :])
        up_right = tl.load(up + right[:, None] * INNER + unit[None, :])
        hidden = tl.dot(x_left, up_left, input_precision=PRECISION)
        hidden = tl.dot(x_right, up_right, hidden, input_precision=PRECISION)
        hidden += tl.load(up_bias + unit).to(tl.float32)[None, :]
        hidden = tl.maximum(hidden, 0.0).to(dtype)
        down_left = tl.load(down + unit[:, None] * WIDTH + left[None, :])
        down_right = tl.load(down + unit[:, None] * WIDTH + right[None, :])
        y_left = tl.dot(hidden, down_left, y_left, input_precision=PRECISION)
        y_right = tl.dot(hidden, down_right, y_right, input_precision=PRECISION)
    y_left += tl.load(down_bias + left).to(tl.float32)[None, :]
    y_right += tl.load(down_bias + right).to(tl.float32)[None, :]
    return tl.maximum(y_left, lower_bound).to(dtype), tl.maximum(y_right, lower_bound).to(dtype)


@triton.jit
def store(out_ptr, rows, first, end, column, STRIDE: tl.constexpr, BLOCK_ATOMS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Store a block of columns of a tile, without rows and columns outside the result."""
    atom = first + tl.arange(0, BLOCK_ATOMS)
    mask = (atom < end)[:, None] & (column < STRIDE)[None, :]
    tl.store(out_ptr + atom[:, None] * STRIDE + column[None, :], rows, mask=mask)
