"""The table of faults in Megatron-LM's own saving and resuming: what is lost, where, and its right name."""

from __future__ import annotations

from dataclasses import dataclass

from tests.megatron_faults.planting import Edit

_CHECKPOINTING = "megatron/training/checkpointing.py"
_TRAINING = "megatron/training/training.py"
_OPTIMIZER = "megatron/core/optimizer/optimizer.py"
_MODEL_IS_LOADED = r"checkpoint_version = get_checkpoint_version\(\)"
_LOAD_OPTIMIZER = r"self\.optimizer\.load_state_dict\(state_dict\)"
_OPTIMIZER_BLOCK = r"if not release and .*\(not args\.no_load_optim\):"


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        key: its short name.
        lost: what was lost, in words.
        component: the right name, a word of :mod:`harness.diagnosis`.
        seen: where the like of it happened.
        case: of :mod:`tests.megatron_faults.cases`.
        edits: what is planted; nothing of it acts where nothing is resumed, but for what saves.
        protocol: the one that reaches it.
    """

    key: str
    lost: str
    component: str
    seen: str
    case: str
    edits: tuple[Edit, ...]
    protocol: str = "full"


def _loading(anchor: str, put: str, lines: str = "") -> tuple[Edit, ...]:
    return (Edit(_CHECKPOINTING, "load_checkpoint", anchor, put, lines),)  # type: ignore[arg-type]


FAULTS: tuple[Fault, ...] = (
    Fault(
        "scheduler",
        "scheduler not restored",
        "lr-schedule",
        "torchtitan#275",
        "fp32",
        _loading(r"opt_param_scheduler\.load_state_dict\(state_dict\['opt_param_scheduler'\]\)", "instead"),
    ),
    Fault(
        "scheduler-twice",
        "scheduler's position doubled",
        "lr-schedule",
        "slime#1546",
        "fp32",
        _loading(
            r"opt_param_scheduler\.load_state_dict\(state_dict\['opt_param_scheduler'\]\)",
            "after",
            "opt_param_scheduler.step(opt_param_scheduler.num_steps)",
        ),
    ),
    Fault(
        "rng-host",
        "host's random stream seeded anew",
        "rng",
        "ms-swift#9935",
        "fp32",
        _loading(
            r"torch\.set_rng_state\(rng_state\['torch_rng_state'\]\)",
            "instead",
            "torch.set_rng_state(torch.Generator().manual_seed(args.seed + iteration).get_state())",
        ),
    ),
    Fault(
        "rng-host-not-restored",
        "host's random stream not restored",
        "rng",
        "Automodel#3437",
        "fp32",
        _loading(r"torch\.set_rng_state\(rng_state\['torch_rng_state'\]\)", "instead"),
        protocol="auto",
    ),
    Fault(
        "rng-device",
        "device's random stream not restored",
        "rng",
        "miles#3187",
        "fp32",
        _loading(r"torch\.cuda\.set_rng_state\(rng_state\['cuda_rng_state'\]\)", "instead"),
    ),
    Fault(
        "rng-tracker",
        "model-parallel random streams not restored",
        "rng",
        "Megatron-LM#6858",
        "fp32",
        _loading(r"cuda_rng_tracker\.set_states\(rng_tracker_states\)", "instead"),
    ),
    Fault(
        "masters",
        "fp32 masters rebuilt from the bf16 weights",
        "optimizer",
        "Megatron-LM#6666",
        "bf16",
        (
            Edit(
                _OPTIMIZER,
                "Float16OptimizerWithFloat16Params.load_state_dict",
                r"current_param\.data\.copy_\(saved_param\.data\)",
                "instead",
                "current_param.data.copy_(saved_param.data.bfloat16())",
            ),
        ),
    ),
    Fault(
        "exp-avg-sq",
        "second moments not restored",
        "optimizer",
        "Megatron-LM#602",
        "fp32",
        (
            Edit(
                _OPTIMIZER,
                "FP32Optimizer.load_state_dict",
                _LOAD_OPTIMIZER,
                "after",
                """
                for kept in self.optimizer.state.values():
                    kept['exp_avg_sq'].zero_()
                """,
            ),
        ),
    ),
    Fault(
        "adam-step",
        "Adam's step count dropped",
        "optimizer",
        "Megatron-Bridge#3832",
        "fp32",
        (
            Edit(
                _OPTIMIZER,
                "FP32Optimizer.load_state_dict",
                _LOAD_OPTIMIZER,
                "after",
                """
                for kept in (*self.optimizer.state.values(), *self.optimizer.param_groups):
                    if 'step' in kept:
                        kept['step'] = kept['step'] * 0
                """,
            ),
        ),
    ),
    Fault(
        "optimizer",
        "optimizer skipped as a whole",
        "optimizer",
        "Megatron-LM#1842",
        "fp32",
        _loading(r"optimizer\.load_state_dict\(state_dict\['optimizer'\]\)", "instead"),
    ),
    Fault(
        "optimizer-and-scheduler",
        "optimizer and scheduler skipped, as by --no-load-optim",
        "optimizer",
        "Megatron-LM#1533",
        "fp32",
        (
            *_loading(_OPTIMIZER_BLOCK, "before", "args.no_load_optim = True"),
            *_loading(
                _OPTIMIZER_BLOCK, "after", "args.no_load_optim = None"
            ),  # it is saved with the arguments
        ),
    ),
    Fault(
        "second-optimizer",
        "experts' own optimizer not restored",
        "optimizer",
        "Megatron-LM#761",
        "moe",
        (
            Edit(
                _OPTIMIZER,
                "ChainedOptimizer.load_state_dict",
                r"optimizer\.load_state_dict\(state\)",
                "instead",
                """
                if optimizer is self.chained_optimizers[0]:
                    optimizer.load_state_dict(state)
                """,
            ),
        ),
    ),
    Fault(
        "scaler",
        "loss scaler not restored",
        "grad-scaler",
        "composer#1376",
        "fp16",
        (
            Edit(
                _OPTIMIZER,
                "Float16OptimizerWithFloat16Params.load_state_dict",
                r"self\.grad_scaler\.load_state_dict\(state_dict\['grad_scaler'\]\)",
                "instead",
            ),
        ),
    ),
    Fault(
        "iteration",
        "iteration not restored",
        "iteration",
        "dlrover#977",
        "fp32",
        _loading(r"return \(iteration, num_floating_point_operations_so_far\)", "before", "iteration = 0"),
    ),
    Fault(
        "tracker-ahead",
        "tracker names a later iteration than was saved",
        "checkpoint",
        "Megatron-Bridge#3267",
        "fp32",
        (
            Edit(
                _CHECKPOINTING,
                "save_checkpoint",
                r"f\.write\('release' if release else str\(iteration\)\)",
                "instead",
                "f.write(str(iteration + args.save_interval))",
            ),
        ),
    ),
    Fault(
        "consumed-one-batch",
        "consumed samples one batch short",
        "data-order",
        "ms-swift#10099",
        "fp32",
        _loading(
            r"args\.consumed_train_samples = getattr\(",
            "after",
            "args.consumed_train_samples -= args.global_batch_size",
        ),
    ),
    Fault(
        "consumed-ignored",
        "loader ignores consumed samples, begins at 0",
        "data-order",
        "Megatron-Bridge#3503",
        "fp32",
        (
            Edit(
                _TRAINING,
                "build_train_valid_test_data_loaders",
                r"train_dataloader = build_pretraining_data_loader\(",
                "before",
                "consumed_train_samples_in_current_phase = 0",
            ),
        ),
    ),
    Fault(
        "validation-restarts",
        "validation's position begins at 0",
        "data-order",
        "Megatron-Bridge#5987",
        "validated",
        (
            Edit(
                _TRAINING,
                "build_train_valid_test_data_loaders",
                r"valid_dataloaders\.append\(build_pretraining_data_loader\(valid_d, args\.",
                "instead",
                "valid_dataloaders.append(build_pretraining_data_loader(valid_d, 0))",
            ),
        ),
    ),
    Fault(
        "expert-bias",
        "router's expert bias not restored",
        "experts",
        "FlagScale#412",
        "moe",
        _loading(
            _MODEL_IS_LOADED,
            "before",
            """
            for part in ddp_model:
                for name, value in part.named_buffers():
                    if name.endswith('expert_bias'):
                        value.zero_()
            """,
        ),
    ),
    Fault(
        "replica",
        "one data-parallel replica's weights differ",
        "weights",
        "Megatron-LM#6920",
        "dp2",
        _loading(
            _MODEL_IS_LOADED,
            "before",
            """
            if torch.distributed.get_rank() == 1:
                for weight in ddp_model[0].parameters():
                    weight.data.mul_(1.001)
            """,
        ),
    ),
    Fault(
        "weights-skipped",
        "a layer's weights skipped without a word, as by strict=False",
        "weights",
        "Megatron-Bridge#6032",
        "fp32",
        _loading(
            r"load_model_state_dict\(ddp_model\[0\], state_dict\['model'\], strict\)",
            "before",
            """
            for name in [one for one in state_dict['model'] if 'linear_fc2' in one]:
                del state_dict['model'][name]
            """,
        ),
    ),
)
