"""What the scan backends are measured against: the published sequential form, the log-step scan of the pure-Python
packages, and compiled C++."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F


def sequential_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The sequential form that Mamba was published with: decays and inputs of all steps first, then step by step.

    Time is unbound once: indexing it in every step, as published, makes the backward pass quadratic in L.
    """
    groups = B.shape[2]
    dt = delta if delta_bias is None else delta + delta_bias
    dt = F.softplus(dt) if delta_softplus else dt
    B, C = (t.repeat_interleave(u.shape[2] // groups, dim=2) for t in (B, C))
    decay = torch.exp(dt.unsqueeze(-1) * A)
    inputs = (dt * u).unsqueeze(-1) * B
    h, outputs = u.new_zeros(u.shape[0], *A.shape), []
    for decay_t, input_t, C_t in zip(decay.unbind(1), inputs.unbind(1), C.unbind(1), strict=True):
        h = decay_t * h + input_t
        outputs.append(torch.einsum("bdn,bdn->bd", h, C_t))
    y = torch.stack(outputs, 1)
    y = y if D is None else y + D * u
    return y if z is None else y * F.silu(z)


def _scan_in_place(a, x) -> None:
    """x[t] becomes a[t] x[t-1] + x[t] along dimension 1: pairs first, then the rest between them (Blelloch 1990)."""
    if a.shape[1] < 2:
        return
    odd_a, odd_x = a[:, 1::2], x[:, 1::2]
    pairs = odd_a.shape[1]
    odd_x.addcmul_(odd_a, x[:, 0::2][:, :pairs])
    odd_a.mul_(a[:, 0::2][:, :pairs])
    _scan_in_place(odd_a, odd_x)
    later = x[:, 2::2]
    later.addcmul_(a[:, 2::2], odd_x[:, : later.shape[1]])


class _LogStepScan(torch.autograd.Function):
    """h_t = a_t h_{t-1} + x_t in O(log L) tensor operations."""

    @staticmethod
    def forward(ctx, a, x):
        h = x.clone()
        _scan_in_place(a.clone(), h)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx, gradient):
        a, h = ctx.saved_tensors
        following = torch.cat([torch.zeros_like(a[:, :1]), a[:, 1:].flip(1)], 1)
        dx = gradient.flip(1)
        _scan_in_place(following, dx)
        dx = dx.flip(1)
        before = F.pad(h[:, :-1], (0, 0, 0, 0, 1, 0))
        return dx * before, dx


def log_step_scan(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
    """The selective scan as mamba.py and similar packages do it: all of L x D x N in memory."""
    batch, length, channels = u.shape
    groups = B.shape[2]
    dt = delta if delta_bias is None else delta + delta_bias
    dt = F.softplus(dt) if delta_softplus else dt
    decay = torch.exp(dt.unsqueeze(-1) * A)
    split = (batch, length, groups, channels // groups)
    inputs = ((dt * u).view(*split, 1) * B.unsqueeze(3)).view(decay.shape)
    h = _LogStepScan.apply(decay, inputs)
    y = (h.view(*split, -1) @ C.unsqueeze(-1)).view(u.shape)
    y = y if D is None else y + D * u
    return y if z is None else y * F.silu(z)


CPP = r"""
// Selective scan with delta_bias and softplus, channels last, groups stacked on channels: tiles of steps, W channels in
// one vector, states recomputed in the backward pass from a checkpoint per tile.
#include <cstring>
#include <vector>
#ifdef __AVX512F__
constexpr int W = 16;
#else
constexpr int W = 8;
#endif
constexpr int T = 16;
typedef float V __attribute__((vector_size(4 * W)));
typedef int I __attribute__((vector_size(4 * W)));
static inline V load(const float* p) { V v; memcpy(&v, p, sizeof v); return v; }
static inline void store(float* p, V v) { memcpy(p, &v, sizeof v); }
static inline V max(V a, V b) { return a > b ? a : b; }
static inline V min(V a, V b) { return a < b ? a : b; }
static inline V exp2(V x) {
    x = min(max(x, V{} - 126.f), V{} + 126.f);
    V magic = V{} + 12582912.f, rounded = x + magic, r = x - (rounded - magic);
    V p = V{} + 0.0013274558f; p = p * r + 0.009671958f;
    p = p * r + 0.05550678f; p = p * r + 0.24022235f; p = p * r + 0.69314706f; p = p * r + 1.f;
    return (V)((I)p + ((I)rounded << 23));
}
static inline V exp_minus_absolute(V x) { return exp2(max(x, -x) * -1.44269504f); }
static inline V sigmoid(V x) { V e = exp_minus_absolute(x); return (x >= 0 ? V{} + 1.f : e) / (e + 1.f); }
static inline V softplus(V x, V& slope) {
    V e = exp_minus_absolute(x), t = e / (e + 2.f), q = t * t, p = V{} + 0.26088443f;
    p = p * q + 0.28375034f; p = p * q + 0.40001642f; p = p * q + 0.66666665f; p = p * q + 2.f;
    slope = (x >= 0 ? V{} + 1.f : e) / (e + 1.f);
    return p * t + max(x, V{});
}
static inline float sum(V v) { float s = 0; for (int i = 0; i < W; i++) s += v[i]; return s; }

template <int N> static void forward(long batch, long L, long K, long Dk, const float* u, const float* delta,
        const float* A, const float* B, const float* C, const float* D, const float* z, const float* bias,
        float* y, float* kept) {
    long blocks = Dk / W, DD = K * Dk, tiles = (L + T - 1) / T;
    #pragma omp parallel for schedule(dynamic)
    for (long task = 0; task < batch * K * blocks; task++) {
        long b = task / (K * blocks), k = task / blocks % K, c = k * Dk + task % blocks * W;
        V h[N], a[N], skip = load(D + c), offset = load(bias + c), slope;
        for (int n = 0; n < N; n++) {
            h[n] = V{};
            for (int i = 0; i < W; i++) a[n][i] = A[(c + i) * N + n] * 1.44269504f;
        }
        for (long t = 0; t < L; t++) {
            if (kept && t % T == 0) memcpy(kept + (task * tiles + t / T) * N * W, h, sizeof h);
            long row = (b * L + t) * DD + c, bc = ((b * L + t) * K + k) * N;
            V x = load(u + row), d = softplus(load(delta + row) + offset, slope), dx = d * x, out = skip * x;
            for (int n = 0; n < N; n++) {
                h[n] = exp2(d * a[n]) * h[n] + dx * B[bc + n];
                out += h[n] * C[bc + n];
            }
            if (z) { V g = load(z + row); out *= g * sigmoid(g); }
            store(y + row, out);
        }
    }
}
template <int N> static void backward(long batch, long L, long K, long Dk, const float* u, const float* delta,
        const float* A, const float* B, const float* C, const float* D, const float* z, const float* bias,
        const float* gy, const float* kept, float* du, float* ddelta, float* dA, float* dB, float* dC, float* dD,
        float* dz, float* dbias) {
    long blocks = Dk / W, DD = K * Dk, tiles = (L + T - 1) / T;
    #pragma omp parallel
    {
        std::vector<float> db(batch * L * K * N), dc(batch * L * K * N);
        #pragma omp for schedule(dynamic)
        for (long task = 0; task < batch * K * blocks; task++) {
            long b = task / (K * blocks), k = task / blocks % K, c = k * Dk + task % blocks * W;
            V carry[N], a[N], da[N], h[T + 1][N], decay[T][N], d[T], slope[T], skip = load(D + c), dd{}, dbi{};
            for (int n = 0; n < N; n++) {
                carry[n] = da[n] = V{};
                for (int i = 0; i < W; i++) a[n][i] = A[(c + i) * N + n];
            }
            for (long tile = tiles - 1; tile >= 0; tile--) {
                long first = tile * T, steps = L - first < T ? L - first : T;
                memcpy(h[0], kept + (task * tiles + tile) * N * W, sizeof h[0]);
                for (long s = 0; s < steps; s++) {
                    long row = (b * L + first + s) * DD + c, bc = ((b * L + first + s) * K + k) * N;
                    d[s] = softplus(load(delta + row) + load(bias + c), slope[s]);
                    V dx = d[s] * load(u + row);
                    for (int n = 0; n < N; n++) {
                        decay[s][n] = exp2(d[s] * a[n] * 1.44269504f);
                        h[s + 1][n] = decay[s][n] * h[s][n] + dx * B[bc + n];
                    }
                }
                for (long s = steps - 1; s >= 0; s--) {
                    long row = (b * L + first + s) * DD + c, bc = ((b * L + first + s) * K + k) * N;
                    V x = load(u + row), g = load(gy + row), dx = d[s] * x, sum_b{}, sum_a{};
                    if (z) {
                        V gate = load(z + row), sig = sigmoid(gate), out = skip * x;
                        for (int n = 0; n < N; n++) out += h[s + 1][n] * C[bc + n];
                        store(dz + row, g * out * sig * (1.f + gate * (1.f - sig)));
                        g *= gate * sig;
                    }
                    for (int n = 0; n < N; n++) {
                        V gh = g * C[bc + n] + carry[n];
                        dc[bc + n] += sum(g * h[s + 1][n]);
                        db[bc + n] += sum(gh * dx);
                        sum_b += gh * B[bc + n];
                        carry[n] = gh * decay[s][n];
                        V q = carry[n] * h[s][n];
                        sum_a += q * a[n];
                        da[n] += q * d[s];
                    }
                    V gd = (x * sum_b + sum_a) * slope[s];
                    store(du + row, d[s] * sum_b + skip * g);
                    store(ddelta + row, gd);
                    dd += g * x; dbi += gd;
                }
            }
            for (int i = 0; i < W; i++) {
                for (int n = 0; n < N; n++) {
                    #pragma omp atomic
                    dA[(c + i) * N + n] += da[n][i];
                }
                #pragma omp atomic
                dD[c + i] += dd[i];
                #pragma omp atomic
                dbias[c + i] += dbi[i];
            }
        }
        #pragma omp critical
        for (size_t i = 0; i < db.size(); i++) { dB[i] += db[i]; dC[i] += dc[i]; }
    }
}
#define PARAMETERS long batch, long L, long K, long Dk, const float *u, const float *delta, const float *A, \
    const float *B, const float *C, const float *D, const float *z, const float *bias
#define ARGUMENTS batch, L, K, Dk, u, delta, A, B, C, D, z, bias
extern "C" int width() { return W; }
extern "C" void scan_forward(int N, PARAMETERS, float* y, float* kept) {
    if (N == 16) forward<16>(ARGUMENTS, y, kept); else forward<1>(ARGUMENTS, y, kept);
}
extern "C" void scan_backward(int N, PARAMETERS, const float* gy, const float* kept, float* du, float* ddelta,
        float* dA, float* dB, float* dC, float* dD, float* dz, float* dbias) {
    if (N == 16) backward<16>(ARGUMENTS, gy, kept, du, ddelta, dA, dB, dC, dD, dz, dbias);
    else backward<1>(ARGUMENTS, gy, kept, du, ddelta, dA, dB, dC, dD, dz, dbias);
}
"""


def compile_cpp() -> ctypes.CDLL | None:
    """The C++ scan as a library, or None where there is no g++."""
    compiler = shutil.which("g++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "scan.cpp"), Path(folder, "scan.so")
        source.write_text(CPP)
        flags = ["-O3", "-march=native", "-fopenmp", "-shared", "-fPIC"]
        subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


class _CppScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, library, keep, u, delta, A, B, C, D, z, bias):
        batch, length, channels = u.shape
        groups, states = B.shape[2:]
        ctx.sizes = [ctypes.c_int(states), *map(ctypes.c_long, (batch, length, groups, channels // groups))]
        ctx.library = library
        y = torch.empty_like(u)
        kept = u.new_empty(batch * -(-length // 16) * channels * states) if keep else None
        ctx.save_for_backward(u, delta, A, B, C, D, z, bias, kept)
        library.scan_forward(*ctx.sizes, *map(_pointer, (u, delta, A, B, C, D, z, bias, y, kept)))
        return y

    @staticmethod
    def backward(ctx, gy):
        *operands, kept = ctx.saved_tensors
        u, delta, A, B, C, D, z, bias = operands
        big = [torch.empty_like(t) for t in (u, delta)]
        small = [torch.zeros_like(t) for t in (A, B, C, D)]
        dz, dbias = None if z is None else torch.empty_like(z), torch.zeros_like(bias)
        gradients = [*big, *small, dz, dbias]
        ctx.library.scan_backward(*ctx.sizes, *map(_pointer, (*operands, gy.contiguous(), kept, *gradients)))
        return None, None, *gradients


def cpp_scan(library: ctypes.CDLL):
    """The C++ scan as a function of the operands; contiguous float32, N = 1 or 16, channels that fill vectors."""

    def scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus=True):
        operands = (u, delta, A, B, C, D, z, delta_bias)
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in operands)
        return _CppScan.apply(library, keep, *operands)

    return scan


def _pointer(t) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if t is None else t.data_ptr())
