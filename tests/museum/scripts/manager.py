"""JAX and optax, with orbax's CheckpointManager."""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--iters", type=int, required=True)
    parser.add_argument("--stop", type=int, required=True)
    parser.add_argument("--save-every", type=int, required=True)
    parser.add_argument("--save", type=Path, required=True)
    parser.add_argument("--load", type=Path)
    parser.add_argument("--metrics", type=Path, required=True)
    a = parser.parse_args()
    first, second, key = jax.random.split(jax.random.key(0), 3)
    weights = {"in": jax.random.normal(first, (8, 32)) * 0.3, "out": jax.random.normal(second, (32, 8)) * 0.2}
    optimizer = optax.adamw(optax.warmup_cosine_decay_schedule(0.0, 1e-2, 5, a.iters))
    state = {"weights": weights, "optimizer": optimizer.init(weights), "key": jax.random.key_data(key)}
    step = 0
    if a.load:
        with ocp.CheckpointManager(a.load.absolute()) as manager:
            step = manager.latest_step()
            state = manager.restore(step, args=ocp.args.StandardRestore(state))

    @jax.jit
    def update(state: dict) -> tuple:
        key, drawn = jax.random.split(jax.random.wrap_key_data(state["key"]))
        batch = jax.random.normal(drawn, (8, 8))

        def loss_of(weights: dict) -> jax.Array:
            out = jax.nn.gelu(batch @ weights["in"]) @ weights["out"]
            return jnp.mean((out - batch[:, ::-1]) ** 2)

        loss, gradients = jax.value_and_grad(loss_of)(state["weights"])
        change, inner = optimizer.update(gradients, state["optimizer"], state["weights"])
        weights = optax.apply_updates(state["weights"], change)
        return {"weights": weights, "optimizer": inner, "key": jax.random.key_data(key)}, loss

    options = ocp.CheckpointManagerOptions(save_interval_steps=a.save_every)
    with ocp.CheckpointManager(a.save.absolute(), options=options) as manager, a.metrics.open("a") as log:
        while step < a.stop:
            state, loss = update(state)
            step += 1
            log.write(json.dumps({"step": step, "loss": float(loss)}) + "\n")
            manager.save(step, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()


if __name__ == "__main__":
    main()
