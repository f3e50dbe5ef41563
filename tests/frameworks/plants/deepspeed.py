"""DeepSpeed: the optimizer's state is not loaded, so that fp32 masters come from the bf16 weights."""

from deepspeed import DeepSpeedEngine

load = DeepSpeedEngine.load_checkpoint
DeepSpeedEngine.load_checkpoint = lambda self, *a, **k: load(
    self, *a, **{**k, "load_optimizer_states": False}
)
