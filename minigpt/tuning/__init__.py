"""What tunes a GPT and is not LoRA: each method enters from outside, through the model's openings."""
