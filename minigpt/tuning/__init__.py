"""Everything that tunes a frozen GPT and is not LoRA: one small file a method."""
