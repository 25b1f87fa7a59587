"""Faster products must stay products: exact to float32's rounding, and the switch put back."""

import pytest
import torch

from clbook import matmul


def test_products_keep_full_precision():
    g = torch.Generator().manual_seed(1)
    for n, k, m in ((128, 784, 400), (7, 33, 5), (2000, 400, 10), (3, 784, 1000)):
        a, b = torch.randn(n, k, generator=g), torch.randn(k, m, generator=g)
        exact = a.double() @ b.double()
        with matmul.fast_matmul():
            found = a @ b
        assert (found.double() - exact).abs().max() < 1e-5 * exact.abs().max()


def test_the_switch_is_put_back_even_after_an_error():
    if not matmul._has_switch():
        pytest.skip("this torch has no such switch")
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(KeyError), matmul.fast_matmul():
        raise KeyError
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_a_cpu_that_rounds_is_left_alone(monkeypatch):
    if not matmul._has_switch():
        pytest.skip("this torch has no such switch")
    monkeypatch.setattr(matmul, "_error", lambda *shape: 3e-3)  # what bfloat16 would give
    matmul._exact_and_allowed.cache_clear()
    try:
        before = torch.backends.mkldnn.matmul.fp32_precision
        with matmul.fast_matmul():
            assert torch.backends.mkldnn.matmul.fp32_precision == before
    finally:
        matmul._exact_and_allowed.cache_clear()
