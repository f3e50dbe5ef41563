"""Megatron-LM's arguments, as far as the native trainer gives them a meaning.

Three kinds: those in :class:`Arguments` are obeyed; those in ``ignored_arguments.py`` are known,
accepted and reported as having none here; anything else is an error that names it. No torch here:
the harness checks a case's arguments before it starts a process.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

from harness.errors import CaseError
from harness.trainers.native.ignored_arguments import IGNORED


@dataclass(frozen=True)
class Arguments:
    """What the native trainer obeys; names are Megatron-LM's with underscores.

    Sizes are in elements, lengths in tokens, batch sizes in samples, intervals in iterations.
    """

    num_layers: int
    hidden_size: int
    num_attention_heads: int
    seq_length: int
    micro_batch_size: int
    train_iters: int
    max_position_embeddings: int = 0
    ffn_hidden_size: int = 0
    global_batch_size: int = 0
    rampup_batch_size: tuple[int, ...] = ()
    vocab_size: int = 256
    make_vocab_size_divisible_by: int = 128
    untie_embeddings_and_output_weights: bool = False
    disable_bias_linear: bool = False
    init_method_std: float = 0.02
    layernorm_epsilon: float = 1e-5
    attention_dropout: float = 0.1
    hidden_dropout: float = 0.1
    position_embedding_type: str = "learned_absolute"
    seed: int = 1234
    data_parallel_random_init: bool = False
    # parallelism
    tensor_model_parallel_size: int = 1
    pipeline_model_parallel_size: int = 1
    num_layers_per_virtual_pipeline_stage: int = 0
    expert_model_parallel_size: int = 1
    expert_tensor_parallel_size: int = 0
    context_parallel_size: int = 1
    sequence_parallel: bool = False
    use_distributed_optimizer: bool = False
    # experts
    num_experts: int = 0
    moe_router_topk: int = 2
    moe_router_dtype: str = "fp32"
    moe_router_score_function: str = "softmax"
    moe_router_load_balancing_type: str = "aux_loss"
    moe_router_enable_expert_bias: bool = False
    moe_router_bias_update_rate: float = 1e-3
    moe_aux_loss_coeff: float = 0.0
    moe_token_dispatcher_type: str = "alltoall"  # noqa: S105 - tokens of text
    moe_ffn_hidden_size: int = 0
    moe_shared_expert_intermediate_size: int = 0
    moe_layer_freq: int = 1
    # precision
    bf16: bool = False
    fp16: bool = False
    fp8_format: str = ""
    fp8_amax_history_len: int = 16
    loss_scale: float = 0.0
    initial_loss_scale: float = 2.0**16
    min_loss_scale: float = 1.0
    loss_scale_window: int = 1000
    hysteresis: int = 2
    # optimizer
    optimizer: str = "adam"
    lr: float = 1e-3
    min_lr: float = 0.0
    decoupled_lr: float | None = None
    decoupled_min_lr: float | None = None
    lr_decay_style: str = "linear"
    lr_decay_iters: int = 0
    lr_warmup_fraction: float | None = None
    lr_warmup_iters: int = 0
    lr_warmup_init: float = 0.0
    weight_decay: float = 0.01
    start_weight_decay: float | None = None
    end_weight_decay: float | None = None
    weight_decay_incr_style: str = "constant"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_eps: float = 1e-8
    clip_grad: float = 1.0
    override_opt_param_scheduler: bool = False
    use_checkpoint_opt_param_scheduler: bool = False
    # data
    data_path: str = "synthetic-10000"
    split: str = "90,10,0"
    eval_interval: int = 1000
    eval_iters: int = 100
    dataloader_type: str = "single"
    # logging
    log_interval: int = 1
    log_params_norm: bool = False
    log_num_zeros_in_grad: bool = False
    tensorboard_dir: str = ""
    tensorboard_log_interval: int = 1
    # checkpoints
    save: str = ""
    load: str = ""
    save_interval: int = 0
    ckpt_format: str = "torch_dist"
    async_save: bool = False
    no_load_optim: bool = False
    no_load_rng: bool = False
    no_save_optim: bool = False
    no_save_rng: bool = False
    finetune: bool = False
    exit_interval: int = 0
    exit_on_missing_checkpoint: bool = False
    # ours: where this phase stops; the schedule always sees train_iters
    harness_exit_iters: int = 0
    # derived
    world_size: int = 1
    ignored: tuple[str, ...] = field(default=())

    @property
    def data_parallel_size(self) -> int:
        """Replicas of the dense model."""
        return self.world_size // (self.tensor_model_parallel_size * self.pipeline_model_parallel_size)

    @property
    def virtual_stages(self) -> int:
        """Model chunks on each pipeline rank."""
        per = self.num_layers_per_virtual_pipeline_stage
        return self.num_layers // self.pipeline_model_parallel_size // per if per else 1

    @property
    def stop(self) -> int:
        """The last iteration of this phase."""
        return self.harness_exit_iters or self.train_iters

    @property
    def precision(self) -> str:
        """``bf16``, ``fp16`` or ``fp32``."""
        return "bf16" if self.bf16 else "fp16" if self.fp16 else "fp32"

    @property
    def corpus_tokens(self) -> int:
        """Length of the synthetic corpus."""
        return int(self.data_path.partition("-")[2] or 10000)


_DERIVED = {"world_size", "ignored"}


def parse(argv: Sequence[str], world_size: int) -> Arguments:
    """Read Megatron-LM's command line.

    Args:
        argv: as Megatron-LM would get it: ``--flag`` or ``--key value [value …]``.
        world_size: number of ranks that will run.

    Raises:
        CaseError: an argument that is unknown, lacks a value, or does not fit the others.
    """
    known = {f"--{f.name.replace('_', '-')}": f for f in fields(Arguments) if f.name not in _DERIVED}
    # Megatron-LM itself spells this one with both.
    known["--use-checkpoint-opt_param-scheduler"] = known["--use-checkpoint-opt-param-scheduler"]
    known["--override-opt_param-scheduler"] = known["--override-opt-param-scheduler"]
    values: dict[str, Any] = {}
    ignored: list[str] = []
    for flag, words in _group(argv):
        if flag in IGNORED:
            ignored.append(flag)
        elif flag in known:
            values[known[flag].name] = _convert(flag, str(known[flag].type), words)
        else:
            near = difflib.get_close_matches(flag, [*known, *IGNORED], n=1)
            hint = f"did you mean {near[0]}?" if near else "the native trainer does not know it"
            raise CaseError(f"argument {flag}: no such argument of Megatron-LM is known here", hint)
    missing = [flag for flag, f in known.items() if f.default is MISSING and f.name not in values]
    if missing:
        raise CaseError(f"arguments: {', '.join(missing)} missing", "add to MODEL_ARGS")
    return _derive(values, world_size, tuple(ignored))


def _group(argv: Sequence[str]) -> list[tuple[str, list[str]]]:
    out: list[tuple[str, list[str]]] = []
    for word in argv:
        if word.startswith("--"):
            out.append((word, []))
        elif not out:
            raise CaseError(f"arguments begin with {word!r}: expected --name")
        else:
            out[-1][1].append(word)
    return out


def _convert(flag: str, kind: str, words: list[str]) -> Any:  # noqa: ANN401 - by the field's type
    text = " ".join(words)
    try:
        if kind == "bool":
            if words and text.lower() not in ("true", "false"):
                raise ValueError  # noqa: TRY301 - one message for all kinds
            return not words or text.lower() == "true"
        if kind.startswith("tuple"):
            return tuple(int(word) for word in words)
        if not words:
            raise ValueError  # noqa: TRY301 - one message for all kinds
        if kind == "int":
            return int(text)
        return float(text) if kind.startswith("float") else text
    except ValueError:
        wanted = {"bool": "no value"}.get(kind, kind.partition(" ")[0])
        raise CaseError(f"argument {flag}: found {text!r}, expected {wanted}") from None


def _derive(values: dict[str, Any], world: int, ignored: tuple[str, ...]) -> Arguments:
    tp = values.get("tensor_model_parallel_size", 1)
    pp = values.get("pipeline_model_parallel_size", 1)
    _fits(
        tp > 0 and pp > 0 and world % (tp * pp) == 0,
        f"world size {world} does not factor: TP {tp} × PP {pp} = {tp * pp} does not divide it",
    )
    dp = world // (tp * pp)
    values.setdefault("max_position_embeddings", values["seq_length"])
    values.setdefault("ffn_hidden_size", 4 * values["hidden_size"])
    values.setdefault("moe_ffn_hidden_size", values["ffn_hidden_size"])
    values.setdefault("expert_tensor_parallel_size", tp)
    values.setdefault("global_batch_size", values["micro_batch_size"] * dp)
    values.setdefault("lr_decay_iters", values["train_iters"])
    values.setdefault("start_weight_decay", values.get("weight_decay", 0.01))
    values.setdefault("end_weight_decay", values.get("weight_decay", 0.01))
    args = Arguments(**values, world_size=world, ignored=ignored)
    _check_parallel(args)
    _check_options(args)
    return args


def _check_parallel(a: Arguments) -> None:
    tp, pp, dp = a.tensor_model_parallel_size, a.pipeline_model_parallel_size, a.data_parallel_size
    ep, etp = a.expert_model_parallel_size, a.expert_tensor_parallel_size
    per = a.num_layers_per_virtual_pipeline_stage
    _fits(a.context_parallel_size == 1, "--context-parallel-size: only 1 is built")
    _fits(a.num_layers % pp == 0, f"--num-layers {a.num_layers} is not a multiple of PP {pp}")
    if per:
        _fits(pp > 1, f"--num-layers-per-virtual-pipeline-stage {per} needs PP > 1")
        _fits(
            a.num_layers // pp % per == 0,
            f"{a.num_layers} layers over PP {pp} leave {a.num_layers // pp} a rank, "
            f"not a multiple of {per} a virtual stage",
        )
    _fits(
        a.num_attention_heads % tp == 0,
        f"--num-attention-heads {a.num_attention_heads} is not a multiple of TP {tp}",
    )
    _fits(
        a.hidden_size % a.num_attention_heads == 0,
        f"--hidden-size {a.hidden_size} is not a multiple of {a.num_attention_heads} heads",
    )
    _fits(a.ffn_hidden_size % tp == 0, f"--ffn-hidden-size is not a multiple of TP {tp}")
    if a.sequence_parallel:
        _fits(a.seq_length % tp == 0, f"--seq-length {a.seq_length} is not a multiple of TP {tp}")
    _fits(
        a.seq_length <= a.max_position_embeddings,
        f"--seq-length {a.seq_length} exceeds --max-position-embeddings",
    )
    step = a.micro_batch_size * dp
    for size in {a.global_batch_size, *a.rampup_batch_size[:2]}:
        _fits(
            size % step == 0,
            f"batch size {size} is not a multiple of micro-batch {a.micro_batch_size} × DP {dp}",
        )
        if a.virtual_stages > 1:
            _fits(
                size // step % pp == 0,
                f"{size // step} micro-batches are not a multiple of PP {pp}, "
                "which the interleaved schedule needs",
            )
    if not a.num_experts:
        _fits(ep == 1, f"--expert-model-parallel-size {ep} without --num-experts")
        return
    _fits(
        a.world_size % (etp * ep * pp) == 0,
        f"world size {a.world_size} does not factor: ETP {etp} × EP {ep} × PP {pp} = "
        f"{etp * ep * pp} does not divide it",
    )
    _fits(a.num_experts % ep == 0, f"--num-experts {a.num_experts} is not a multiple of EP {ep}")
    _fits(a.moe_ffn_hidden_size % etp == 0, f"--moe-ffn-hidden-size is not a multiple of {etp}")
    _fits(
        a.moe_shared_expert_intermediate_size % tp == 0,
        f"--moe-shared-expert-intermediate-size is not a multiple of TP {tp}",
    )
    _fits(tp == 1 or a.sequence_parallel, "experts with TP > 1 need --sequence-parallel")
    _fits(a.moe_router_topk <= a.num_experts, "--moe-router-topk exceeds --num-experts")


def _check_options(a: Arguments) -> None:
    def one_of(name: str, *allowed: str) -> None:
        found = getattr(a, name)
        flag = "--" + name.replace("_", "-")
        _fits(found in allowed, f"argument {flag}: found {found!r}, expected {' or '.join(allowed)}")

    _fits(not (a.bf16 and a.fp16), "--bf16 and --fp16 exclude each other")
    one_of("ckpt_format", "torch", "torch_dist")
    one_of("lr_decay_style", "cosine", "linear", "constant")
    one_of("weight_decay_incr_style", "constant", "linear", "cosine")
    one_of("optimizer", "adam")
    one_of("moe_router_dtype", "fp32")
    one_of("moe_router_score_function", "softmax", "sigmoid")
    one_of("moe_router_load_balancing_type", "aux_loss", "none")
    one_of("moe_token_dispatcher_type", "alltoall")
    one_of("position_embedding_type", "learned_absolute")
    one_of("dataloader_type", "single")
    one_of("fp8_format", "", "e4m3")
    _fits(a.moe_layer_freq == 1, "--moe-layer-freq: only 1 is built")
    _fits(
        a.data_path.partition("-")[0] == "synthetic"
        and (a.data_path == "synthetic" or a.data_path.partition("-")[2].isdigit()),
        f"argument --data-path: found {a.data_path!r}, expected synthetic-<tokens>: the native "
        "trainer makes its own corpus",
    )
    if a.moe_router_enable_expert_bias:
        _fits(
            a.moe_router_score_function == "sigmoid",
            "--moe-router-enable-expert-bias needs --moe-router-score-function sigmoid",
        )
    if a.rampup_batch_size:
        _fits(len(a.rampup_batch_size) == 3, "--rampup-batch-size takes <start> <increment> <samples>")
    _fits(
        a.async_save is False or a.ckpt_format == "torch_dist",
        "--async-save needs --ckpt-format torch_dist",
    )
    _fits(
        not (a.lr_warmup_iters and a.lr_warmup_fraction is not None),
        "--lr-warmup-iters and --lr-warmup-fraction exclude each other",
    )


def _fits(condition: bool, message: str) -> None:  # noqa: FBT001 - a guard
    if not condition:
        raise CaseError(message, "change MODEL_ARGS, the profile of this hardware, or world_size")
