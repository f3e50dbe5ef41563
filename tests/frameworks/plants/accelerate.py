"""accelerate: the scheduler's position is not loaded, as in torchtitan#275."""

from accelerate.scheduler import AcceleratedScheduler

assert AcceleratedScheduler.load_state_dict
AcceleratedScheduler.load_state_dict = lambda self, state: None
