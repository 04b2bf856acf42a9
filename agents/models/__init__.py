"""What speaks: backbones, LoRA policies on them, the decode loop, prompts, and models behind an endpoint."""
