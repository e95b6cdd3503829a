"""The selective scan as Triton kernels. ``triton_scan`` imports this module lazily (it needs triton) and launches them.

A program is one batch item, one block of DB channels of a group and one segment of the sequence; it holds BN states of
each channel. It goes through its segment in chunks of T steps, each a (T, DB, BN) tile: with DB * BN threads, a thread
scans the T steps of one state in its registers. Larger N are worked off by several launches, the first state being n0,
which add to the same results.

Segments let a single volume fill the GPU. Three passes: what every segment adds to a zero state (``segment_sums``),
these carried from segment to segment (``carry``), then the scan proper from the right states. The adjoint recurrence
    g_t = C_t gy_t + a_{t+1} g_{t+1},  a_t = exp(delta_t A)
goes the same three ways from the end; between chunks travels q = a_t g_t of a chunk's first step.

Lengths and counts are not specialised on: one compilation serves sequences of all lengths.

Letters: dt the step size, x = dt u, h the state; (Bt, L, channels) tensors may be strided but for their last dimension.
"""

import triton
import triton.language as tl


@triton.jit
def _combine(a_before, b_before, a, b):
    return a_before * a, b_before * a + b


@triton.jit
def _mine(A, width, N, n0, DB: tl.constexpr, BN: tl.constexpr):
    """What this program works on, of a group of ``width`` channels: the group's number; channel numbers (DB,) and which
    of them exist; state numbers (BN,); places in a (channels, N) table (DB, BN) and which of them exist; A there."""
    blocks = tl.cdiv(width, DB)
    group = tl.program_id(0) // blocks
    within = tl.program_id(0) % blocks * DB + tl.arange(0, DB)
    channel, real, n = group * width + within, within < width, n0 + tl.arange(0, BN)
    table, exists = channel[:, None] * N + n[None, :], real[:, None] & (n < N)[None, :]
    return group, channel, real, n, table, exists, tl.load(A + table, mask=exists, other=0.0)


@triton.jit
def _tile(pointer, batch_stride, row_stride, t, column, inside):
    at = tl.program_id(2).to(tl.int64) * batch_stride + t[:, None].to(tl.int64) * row_stride + column[None, :]
    return tl.load(pointer + at, mask=inside, other=0.0)


@triton.jit
def _softplus(raw):
    """log(1 + exp(raw)), and its derivative.

    log(1 + e) = 2 atanh(e / (2 + e)) as a series: the hardware's logarithm loses all digits for small e.
    """
    e = tl.exp(-tl.abs(raw))
    r = e / (2 + e)
    q = r * r
    series = (
        ((0.26088443876182554 * q + 0.2837503446360764) * q + 0.4000164261762317) * q + 0.6666666486972194
    ) * q + 2
    return tl.maximum(raw, 0.0) + r * series, tl.where(raw >= 0, 1.0, e) / (1 + e)


@triton.jit
def _steps(delta, bias, batch_stride, row_stride, t, channel, inside, SOFTPLUS: tl.constexpr):
    """Step sizes (T, DB), zero outside, and their derivatives by ``delta``."""
    dt = _tile(delta, batch_stride, row_stride, t, channel, inside)
    slope = tl.full(dt.shape, 1.0, tl.float32)
    if bias is not None:
        dt += tl.load(bias + channel, mask=tl.max(inside.to(tl.int32), 0) > 0, other=0.0)[None, :]
    if SOFTPLUS:
        dt, slope = _softplus(dt)
    return tl.where(inside, dt, 0.0), slope


@triton.jit
def _silu(x):
    """x sigmoid(x), and its derivative."""
    e = tl.exp(-tl.abs(x))
    s = tl.where(x >= 0, 1.0, e) / (1 + e)
    return x * s, s * (1 + x * (1 - s))


@triton.jit
def _row(tile, number, T: tl.constexpr):
    """Row ``number`` of a (T, DB, BN) tile."""
    return tl.sum(tl.where(tl.arange(0, T)[:, None, None] == number, tile, 0.0), 0)


@triton.jit
def _add_up(pointer, at, value, inside, FIRST: tl.constexpr):
    """The launches after the first add to what is there; returns the sum so far."""
    if not FIRST:
        value += tl.load(pointer + at, mask=inside, other=0.0)
    tl.store(pointer + at, value, mask=inside)
    return value


@triton.jit(do_not_specialize=["length", "n0", "chunks"])
def segment_sums(
    p, delta, A, R, bias, z, sums, time, length, width, channels, N, n0, chunks, p_batch, p_row, delta_batch, delta_row,
    z_batch, z_row, R_batch, R_row, R_group, ADJOINT: tl.constexpr, FIRST: tl.constexpr, SOFTPLUS: tl.constexpr,
    T: tl.constexpr, DB: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """What a segment turns a zero state into: p is u and R is B; or, ADJOINT, a zero q: p is gy and R is C.

    Writes sums (Bt, segments, channels, N) and time (Bt, segments, channels), the sum of the steps.
    """
    group, channel, real, n, table, exists, a = _mine(A, width, N, n0, DB, BN)
    segment = tl.program_id(1)
    total, elapsed = tl.zeros((DB, BN), tl.float32), tl.zeros((DB,), tl.float32)
    for i in range(chunks):
        chunk = segment * chunks + (chunks - 1 - i if ADJOINT else i)
        row = tl.arange(0, T)
        t = chunk * T + row
        inside = (t < length)[:, None] & real[None, :]
        dt, _ = _steps(delta, bias, delta_batch, delta_row, t, channel, inside, SOFTPLUS)
        value = _tile(p, p_batch, p_row, t, channel, inside)
        r = _tile(R + group * R_group, R_batch, R_row, t, n, (t < length)[:, None] & (n < N)[None, :])
        if ADJOINT:
            if z is not None:
                value *= _silu(_tile(z, z_batch, z_row, t, channel, inside))[0]
            span = tl.cumsum(dt, 0)
        else:
            value *= dt
            later = inside & (t + 1 < length)[:, None] & (row < T - 1)[:, None]
            after, _ = _steps(delta, bias, delta_batch, delta_row, t + 1, channel, later, SOFTPLUS)
            span = tl.cumsum(after, 0, reverse=True)  # a difference of sums would lose digits
        whole = tl.sum(dt, 0)
        added = tl.exp(span[:, :, None] * a[None]) * value[:, :, None] * r[:, None, :]
        total = tl.exp(whole[:, None] * a) * total + tl.sum(added, 0)
        elapsed += whole
    place = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + segment
    tl.store(sums + place * channels * N + table, total, mask=exists)
    tl.store(time + place * channels + channel, elapsed, mask=real)


@triton.jit(do_not_specialize=["segments"])
def carry(A, sums, time, entries, segments, channels, N, ADJOINT: tl.constexpr, BLOCK: tl.constexpr):
    """entries (Bt, segments, channels, N): the state (or q) that every segment starts from."""
    state = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    kept = state < channels * N
    a = tl.load(A + state, mask=kept, other=0.0)
    value = tl.zeros((BLOCK,), tl.float32)
    for i in range(segments):
        place = tl.program_id(1).to(tl.int64) * segments + (segments - 1 - i if ADJOINT else i)
        at = place * channels * N + state
        tl.store(entries + at, value, mask=kept)
        elapsed = tl.load(time + place * channels + state // N, mask=kept, other=0.0)
        value = tl.exp(elapsed * a) * value + tl.load(sums + at, mask=kept, other=0.0)


@triton.jit(do_not_specialize=["length", "n0", "chunks", "all_chunks"])
def forward(
    u, delta, A, B, C, D, z, bias, entries, y, out, states, length, width, channels, N, n0, chunks, all_chunks,
    u_batch, u_row, delta_batch, delta_row, z_batch, z_row, B_batch, B_row, B_group, C_batch, C_row, C_group,
    FIRST: tl.constexpr, SOFTPLUS: tl.constexpr, T: tl.constexpr, DB: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """y (Bt, L, channels) before the gate, None where it need not be kept; out after it (None without z).

    states (Bt, all_chunks, channels, N): the state at every chunk's start, None where it need not be kept.
    """
    group, channel, real, n, table, exists, a = _mine(A, width, N, n0, DB, BN)
    segment, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    h = tl.zeros((DB, BN), tl.float32)
    if entries is not None:
        h += tl.load(entries + (batch * tl.num_programs(1) + segment) * channels * N + table, mask=exists, other=0.0)
    for i in range(chunks):
        chunk = segment * chunks + i
        if states is not None:
            at = (batch * all_chunks + chunk) * channels * N + table
            tl.store(states + at, h, mask=exists)
        t = chunk * T + tl.arange(0, T)
        inside, row_inside = (t < length)[:, None] & real[None, :], (t < length)[:, None] & (n < N)[None, :]
        dt, _ = _steps(delta, bias, delta_batch, delta_row, t, channel, inside, SOFTPLUS)
        u_tile = _tile(u, u_batch, u_row, t, channel, inside)
        b = _tile(B + group * B_group, B_batch, B_row, t, n, row_inside)
        c = _tile(C + group * C_group, C_batch, C_row, t, n, row_inside)
        x = (dt * u_tile)[:, :, None] * b[:, None, :]
        decay, own = tl.associative_scan((tl.exp(dt[:, :, None] * a[None]), x), 0, _combine)
        h_tile = decay * h[None] + own
        h = _row(h_tile, T - 1, T)
        result = tl.sum(h_tile * c[:, None, :], 2)
        at = (batch * length + t[:, None]) * channels + channel[None, :]
        if D is not None and FIRST:
            result += u_tile * tl.load(D + channel, mask=real, other=0.0)[None, :]
        if y is not None:
            result = _add_up(y, at, result, inside, FIRST)
        if z is not None:
            gate = _silu(_tile(z, z_batch, z_row, t, channel, inside))[0]
            tl.store(out + at, result * gate, mask=inside)


@triton.jit
def _gated_gradient(gy, y, z, dz, at, t, channel, inside, z_batch, z_row, FIRST):
    """Gradient of what the gate multiplies; writes that of the gate's input."""
    gradient = tl.load(gy + at, mask=inside, other=0.0)
    if z is not None:
        gate, slope = _silu(_tile(z, z_batch, z_row, t, channel, inside))
        if FIRST:
            tl.store(dz + at, gradient * tl.load(y + at, mask=inside, other=0.0) * slope, mask=inside)
        gradient *= gate
    return gradient


@triton.jit
def _states_before(
    u, delta, B, bias, start, a, t, row, channel, n, inside, row_inside, u_batch, u_row, delta_batch, delta_row,
    B_batch, B_row, SOFTPLUS: tl.constexpr,
):  # fmt: skip
    """State before every step (T, DB, BN), scanned from the step before it: h - x would lose it to rounding."""
    inside, row_inside = inside & (row > 0)[:, None], row_inside & (row > 0)[:, None]
    dt, _ = _steps(delta, bias, delta_batch, delta_row, t - 1, channel, inside, SOFTPLUS)
    x = dt * _tile(u, u_batch, u_row, t - 1, channel, inside)
    b = _tile(B, B_batch, B_row, t - 1, n, row_inside)
    own = tl.where(row[:, None, None] == 0, start[None], x[:, :, None] * b[:, None, :])
    _, h = tl.associative_scan((tl.exp(dt[:, :, None] * a[None]), own), 0, _combine)
    return h


@triton.jit
def _adjoint(
    delta, bias, a, q, own, t, row, length, channel, inside, delta_batch, delta_row, SOFTPLUS: tl.constexpr,
    T: tl.constexpr,
):  # fmt: skip
    """g (T, DB, BN) from ``own`` = C gy and the q of the chunk after this one."""
    inside = inside & ((row < T - 1) & (t + 1 < length))[:, None]
    dt, _ = _steps(delta, bias, delta_batch, delta_row, t + 1, channel, inside, SOFTPLUS)
    pair = (tl.exp(dt[:, :, None] * a[None]), own)
    decay, own = tl.associative_scan(pair, 0, _combine, reverse=True)
    return decay * q[None] + own


@triton.jit
def _backward_chunk(
    u, delta, B, C, skip, z, bias, y, gy, du, ddelta, dB, dC, dz, start, q, a, t, channel, inside, n, row_inside, at,
    line, length, u_batch, u_row, delta_batch, delta_row, z_batch, z_row, B_batch, B_row, C_batch, C_row,
    FIRST: tl.constexpr, SOFTPLUS: tl.constexpr, T: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk from the state at its ``start`` and the q after it; returns its q, and its dA and dD."""
    row = tl.arange(0, T)
    dt, slope = _steps(delta, bias, delta_batch, delta_row, t, channel, inside, SOFTPLUS)
    u_tile = _tile(u, u_batch, u_row, t, channel, inside)
    g_y = _gated_gradient(gy, y, z, dz, at, t, channel, inside, z_batch, z_row, FIRST)
    b, c = _tile(B, B_batch, B_row, t, n, row_inside), _tile(C, C_batch, C_row, t, n, row_inside)
    x, decay = dt * u_tile, tl.exp(dt[:, :, None] * a[None])
    through = decay * _states_before(
        u, delta, B, bias, start, a, t, row, channel, n, inside, row_inside, u_batch, u_row, delta_batch, delta_row,
        B_batch, B_row, SOFTPLUS,
    )  # fmt: skip
    by_c = tl.sum(g_y[:, :, None] * (through + x[:, :, None] * b[:, None, :]), 1)
    tl.atomic_add(dC + line, by_c, mask=row_inside)
    own = g_y[:, :, None] * c[:, None, :]
    g = _adjoint(delta, bias, a, q, own, t, row, length, channel, inside, delta_batch, delta_row, SOFTPLUS, T)
    tl.atomic_add(dB + line, tl.sum(g * x[:, :, None], 1), mask=row_inside)
    through *= g
    by_x = tl.sum(g * b[:, None, :], 2)
    by_u = dt * by_x
    if FIRST:
        by_u += g_y * skip[None, :]
    _add_up(du, at, by_u, inside, FIRST)
    _add_up(ddelta, at, (tl.sum(through * a[None], 2) + u_tile * by_x) * slope, inside, FIRST)
    return _row(decay * g, 0, T), tl.sum(through * dt[:, :, None], 0), tl.sum(g_y * u_tile, 0)


@triton.jit(do_not_specialize=["length", "n0", "chunks", "all_chunks"])
def backward(
    u, delta, A, B, C, D, z, bias, y, gy, entries, states, du, ddelta, dA, dB, dC, dD, dz, length, width, channels, N,
    n0, chunks, all_chunks, u_batch, u_row, delta_batch, delta_row, z_batch, z_row, B_batch, B_row, B_group, C_batch,
    C_row, C_group, FIRST: tl.constexpr, SOFTPLUS: tl.constexpr, T: tl.constexpr, DB: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """All gradients; dA (Bt, segments, channels, N) and dD (Bt, segments, channels) still to be summed.

    dB and dC (Bt, L, groups, N) are added to, channel block by channel block, in no particular order.
    """
    group, channel, real, n, table, exists, a = _mine(A, width, N, n0, DB, BN)
    segment, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    place = batch * tl.num_programs(1) + segment
    q, skip = tl.zeros((DB, BN), tl.float32), tl.zeros((DB,), tl.float32)
    if entries is not None:
        q += tl.load(entries + place * channels * N + table, mask=exists, other=0.0)
    if D is not None:
        skip += tl.load(D + channel, mask=real, other=0.0)
    sum_A, sum_D = tl.zeros((DB, BN), tl.float32), tl.zeros((DB,), tl.float32)
    for i in range(chunks):
        chunk = segment * chunks + chunks - 1 - i
        t = chunk * T + tl.arange(0, T)
        inside, row_inside = (t < length)[:, None] & real[None, :], (t < length)[:, None] & (n < N)[None, :]
        at = (batch * length + t[:, None]) * channels + channel[None, :]
        line = (batch * length + t[:, None]) * (channels // width) * N + group * N + n[None, :]
        start = tl.load(states + (batch * all_chunks + chunk) * channels * N + table, mask=exists, other=0.0)
        q, by_a, by_d = _backward_chunk(
            u, delta, B + group * B_group, C + group * C_group, skip, z, bias, y, gy, du, ddelta, dB, dC, dz, start, q,
            a, t, channel, inside, n, row_inside, at, line, length, u_batch, u_row, delta_batch, delta_row, z_batch,
            z_row, B_batch, B_row, C_batch, C_row, FIRST, SOFTPLUS, T,
        )  # fmt: skip
        sum_A += by_a
        sum_D += by_d
    tl.store(dA + place * channels * N + table, sum_A, mask=exists)
    tl.store(dD + place * channels + channel, sum_D, mask=real)
