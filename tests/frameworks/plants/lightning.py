"""Lightning: the optimizer's state is not restored, as in Megatron-LM#1842."""

from lightning.pytorch.trainer.connectors.checkpoint_connector import _CheckpointConnector

assert _CheckpointConnector.restore_optimizers
_CheckpointConnector.restore_optimizers = lambda self: None
