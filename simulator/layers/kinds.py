"""The kinds of operations that layers and steps emit, besides those of schedules (`simulator.program.operations`).

Tensors are [batch, tokens, heads, dim]; a matrix is [1, out, 1, in]. T tokens, C features, V words. What is read beyond
this table with option ``accumulate`` is a gradient that is added to.

| kind | work | reads -> writes; options |
|---|---|---|
| linear | Gemm | x, w -> y = x w^T; `rows` (start, stop): of these tokens of x only; `accumulate`: y += |
| linear_dx | Gemm | dy, w -> dx = dy w; `rows`: writes these tokens of dx |
| linear_dw | Gemm | dy, x (, dw) -> dw = dy^T x; `rows`: these tokens of x |
| amax | Elementwise | x -> the largest magnitude of x |
| quantise | Elementwise | x, its amax -> x in FP8 `form`, once or twice (transposed) |
| embed | Elementwise | ids, table -> x: rows of the table, 0 for ids of other ranks' parts |
| embed_dw | Elementwise | ids, dx (, dtable) -> dtable |
| rms_norm | Elementwise | x, g -> y = x rstd g, rstd = 1 / sqrt(mean x^2 + eps) over dim |
| rms_norm_dx | Elementwise | dy, x, g, rstd -> dx |
| rms_norm_dw | Elementwise | dy, x, rstd (, dg) -> dg |
| rope | Elementwise | x -> x in place: last `dims` features rotated by their token's position; `inverse` |
| append | Elementwise | rows, cache -> cache: the rows, `before` its end, on the `last` context parallel rank |
| store_rows | Elementwise | rows -> their place in a cache |
| absorb | Gemm | q, w of the expanding product -> q by which heads attend to latent rows, scaled for their dim |
| latent_values | Gemm | o over latent rows, w -> o of the heads |
| best_word | Elementwise | logits -> the largest of this rank's words, and its number; the first is number `offset` |
| choose_word | Elementwise | those of all parts -> the number of the largest |
| swiglu, swiglu_backward | Elementwise | gate, up -> silu(gate) up; dh, gate, up -> dgate, dup |
| gelu, gelu_backward | Elementwise | x -> gelu(x) (exact); dy, x -> dx |
| split, join | Elementwise | features of x cut into several tensors, and put together again |
| latent_keys (_backward) | Elementwise | expanded, key -> [expanded's first features, key], the others; and back |
| gates (_backward) | Elementwise | router logits -> softmax over the experts that each token visits, by row |
| dispatch (_backward) | Elementwise | x -> rows by expert, `counts` of `place` (those `sent`); and added by token |
| combine_rows (_backward) | Elementwise | rows, gates -> sum over a token's rows of gate row |
| regroup | Elementwise | rows by source and expert -> by expert and source (`by_expert`), or back |
| experts, experts_dx, experts_dw | Gemm | rows by expert, stack of matrices -> each expert's product; `counts` |
| all_to_all_v | Collective | rows to and from the experts' ranks |
| bias, bias_dw | Elementwise | x, b -> x + b in place; dy (, db) -> db |
| row_squares | Elementwise | w, ba -> square of the norm of each row of w + ba (DoRA) |
| row_lengths | Elementwise | squares, m -> m / root of the squares, in place |
| scale | Elementwise | x, s -> x s, a factor per feature |
| length_dw | Elementwise | dy, y, s, m (, dm) -> dm = sum over tokens of dy y s / m |
| add | Elementwise | a, b -> a + b in a new tensor |
| split, join | Elementwise | features of x cut into several tensors, and put together again |
| take_tokens | Elementwise | tokens `rows` of x (negative: from the end), copied |
| join_tokens | Elementwise | tokens of two tensors, one after the other |
| drop_tokens | Elementwise | x without the `dropped` leading tokens of each rank |
| cross_entropy | Elementwise | logits, labels -> lse, target: of this rank's words, the first is number `offset` |
| cross_entropy_join | Elementwise | lse, target of all parts -> lse, target of all words |
| cross_entropy_backward | Elementwise | logits, labels, lse -> d logits = (softmax - onehot) `scale`, or in place |
| | | with a factor per sequence, that in place of `scale` |
| sequence_sum | Elementwise | lse, target -> sum over tokens of target - lse |
| preference | Elementwise | sums of pairs (, those of the reference) -> minus the loss's derivative by each |
| depthwise, depthwise_dx | Stencil | x, rows above, rows below, w -> each channel's convolution; `width` of a row |
| depthwise_dw | Stencil | dy, x, rows above, rows below (, dw) -> dw |
| adamw | Elementwise | grad, m, v, master -> m, v, master, weight; `settings` of the update |
"""
