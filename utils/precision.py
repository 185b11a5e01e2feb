"""Half precision where the processor gains from it."""

from contextlib import AbstractContextManager

import torch


def fast_dtype(device: torch.device, float32: bool = False) -> torch.dtype:
    """bfloat16 where matrix products in it are faster than in float32 (GPUs, processors with AMX or
    AVX512-BF16), float32 elsewhere, or if that is asked for."""
    if float32:
        return torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    gains = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    allowed = torch.backends.cpu.get_cpu_capability() == "AVX512"  # not if ATEN_CPU_CAPABILITY=avx2 forbids it
    return torch.bfloat16 if gains and allowed else torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Run matrix products and convolutions in `dtype`; with float32, change nothing."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
