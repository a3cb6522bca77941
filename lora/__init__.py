"""LoRA for any nn.Module: h = W0 x + (alpha/r) B A x. Knows nothing of minigpt."""
