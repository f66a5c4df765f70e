"""Kernel names of real traces, by library."""

from __future__ import annotations

import pytest

from traces.kineto.classify import classify_kernel, classify_operator

KERNELS = {
    "attention_forward": [
        "void pytorch_flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>, false, true>(Flash_fwd_params)",
        "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<64, 64, 128, 4>>(Flash_fwd_params)",
        "void cutlass::device_kernel<flash::enable_sm90<flash::FlashAttnFwdSm90<flash::Mainloop<2>>>>()",
        "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128_4x1x1_cga1x1x1_kernel0_0",
        "fmha_cutlassF_bf16_aligned_64x128_rf_sm80(PyTorchMemEffAttention::AttentionKernel<cutlass::bfloat16_t>)",
        "_attn_fwd",
        "triton_tem_fused_flex_attention_0",
    ],
    "attention_backward": [
        "void pytorch_flash::flash_bwd_dot_do_o_kernel<true, Flash_bwd_kernel_traits<128>>(Flash_bwd_params)",
        "void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<Traits<128>>(Flash_bwd_params)",
        "cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma_f16_knob_26_64x64x128_1x4x1_cga1x1x1_kernel0_0",
        "void cudnn::fusion::compute_dot_do_o_specialized<true, 128>(void const*)",
        "void cudnn::fusion::convert_dq_to_16bits<true>(void const*)",
        "fmha_cutlassB_bf16_aligned_64x64_k128_sm80(PyTorchMemEffAttention::AttentionBackwardKernel<>)",
        "_attn_bwd",
        "triton_tem_fused_flex_attention_backward_1",
    ],
    "gemm": [
        "nvjet_sm90_tst_256x128_64x4_1x2_h_bz_coopA_NTT",
        "ampere_bf16_s16816gemm_bf16_128x128_ldg8_f2f_stages_32x5_tn",
        "sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64_warpgroupsize1x1x1_execute_segment_k_off_kernel__5x_cublas",
        "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8>(Params)",
        "void gemv2T_kernel_val<int, int, __nv_bfloat16>(cublasGemvParamsEx<int>)",
        "void cublasLt::splitKreduce_kernel<32, 16, int, float, __nv_bfloat16>(cublasLt::cublasSplitKParams<float>)",
    ],
    "elementwise": [
        "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::BFloat16>>(int)",
        "void at::native::unrolled_elementwise_kernel<at::native::direct_copy_kernel_cuda>(int)",
        "void at::native::(anonymous namespace)::CatArrayBatchedCopy<OpaqueType<2u>>()",
        "void at::native::index_elementwise_kernel<128, 4, at::native::gpu_index_kernel>(long)",
        "triton_poi_fused_add_mul_0",
    ],
    "reduction": [
        "void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::func_wrapper_t<float>>>()",
        "void (anonymous namespace)::softmax_warp_forward<float, float, float, 8, false, false>(float*)",
        "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<c10::BFloat16, float>(int)",
        "triton_red_fused_mean_pow_0",
    ],
    "other": ["my_own_kernel(float*)"],
}
COMMUNICATION = [
    ("ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "allreduce", "all_reduce"),
    ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "_allgather_base", "all_gather"),
    ("ncclDevKernel_ReduceScatter_Sum_f32_RING_LL(Args)", "_reduce_scatter_base", "reduce_scatter"),
    ("ncclDevKernel_Broadcast_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "broadcast", "broadcast"),
    ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "", "exchange"),
    ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "send", "exchange"),
    ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "nccl:coalesced", "exchange"),
    ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", "all_to_allv", "all_to_all"),
    ("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t(ncclDevComm*)", "alltoall_base", "all_to_all"),
    ("ncclKernel_AllReduce_RING_LL_Sum_float(ncclDevComm*)", "", "all_reduce"),
    ("ncclDevKernel_Reduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "reduce", "reduce"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in KERNELS.items() for name in names])
def test_kernels(kind, name):
    assert classify_kernel(name) == ("compute", kind)


@pytest.mark.parametrize(("name", "collective", "kind"), COMMUNICATION)
def test_communication(name, collective, kind):
    assert classify_kernel(name, collective) == ("communication", kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::linear", "gemm"),
        ("autograd::engine::evaluate_function: AddmmBackward0", "gemm"),
        ("aten::scaled_dot_product_attention", "attention_forward"),
        ("autograd::engine::evaluate_function: ScaledDotProductFlashAttentionForCpuBackward0", "attention_backward"),
        ("aten::gelu", "elementwise"),
        ("aten::_softmax", "reduction"),
        ("mylib::thing", "other"),
    ],
)
def test_operators(name, kind):
    assert classify_operator(name) == ("compute", kind)
