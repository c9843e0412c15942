"""Group relative policy optimisation: a transformer learns by reward alone to reverse digits.

Each prompt is completed several times. A completion is worth the share of its digits that are
right, and its advantage is how far that is above the mean of its group; nobody shows an answer.

Shao et al., DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models,
2024, https://arxiv.org/abs/2402.03300
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp

import jaxnn as nn

DIGITS, LENGTH = 6, 3
PROMPTS, GROUP = 32, 16  # completions of each prompt
PASSES, CLIP = 2, 0.2  # over what was sampled, and how far the probabilities may go in them


def model(cache_length: int | None = None) -> nn.Layer:
    """From digits `(batch, time)` to the logits of the next ones."""
    attention = nn.attention(4, is_causal=True, positions=nn.rotary(), cache_length=cache_length)
    block = nn.transformer_block(attention, nn.feed_forward(64))
    return nn.serial(nn.embedding(DIGITS, 32), nn.stack(block, 2), nn.dense(DIGITS))


WRITER = nn.autoregressive(model(cache_length=2 * LENGTH))


def sampled(params: Any, key: jax.Array) -> tuple[Any, jax.Array]:
    """Completed prompts, how likely and how good in their group they are, and the mean reward."""
    prompt_key, key = jax.random.split(key)
    prompts = jax.random.randint(prompt_key, (PROMPTS, LENGTH), 0, DIGITS).repeat(GROUP, 0)
    written, log_probs = nn.generate(
        WRITER, params, prompts, length=LENGTH, key=key, return_log_probs=True
    )
    rewards = jnp.mean(written == prompts[:, ::-1], axis=1, dtype=jnp.float32)
    advantage = jax.nn.standardize(rewards.reshape(PROMPTS, GROUP), axis=1).reshape(-1, 1)
    return (jnp.concatenate([prompts, written], axis=1), log_probs, advantage), rewards.mean()


def loss_fn(params: Any, state: Any, batch: Any, key: jax.Array) -> Any:
    """Make likelier what is better than its group, within CLIP of how likely it was."""
    tokens, log_probs, advantage = batch
    logits, state = model().apply(params, state, tokens[:, :-1])
    now = nn.functional.token_log_probs(logits, tokens[:, 1:])[:, LENGTH - 1 :]
    ratio = jnp.exp(now - log_probs)
    gain = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
    return -gain.mean(), (state, {})


def main() -> None:
    """Train, and tell the mean reward every fifty batches."""
    parser = argparse.ArgumentParser(description="Learn to reverse digits by reward alone.")
    parser.add_argument("--batches", type=int, default=300)
    batches = parser.parse_args().batches
    optimizer = nn.optimizers.adam(3e-3)
    step = nn.train_step(loss_fn, optimizer)

    @jax.jit
    def learn(now: nn.TrainState, key: jax.Array) -> tuple[nn.TrainState, jax.Array]:
        batch, reward = sampled(now.params, key)
        return jax.lax.scan(lambda now, _: step(now, batch), now, length=PASSES)[0], reward

    init_key, train_key, *keys = jax.random.split(jax.random.key(0), 2 + batches)
    params, state = model().init(init_key, jnp.zeros((1, LENGTH), jnp.int32))
    now = nn.train_state(params, state, optimizer, train_key)
    for number, key in enumerate(keys, start=1):
        now, reward = learn(now, key)
        if number % 50 == 0 or number == batches:
            print(f"Batch {number}: mean reward {reward:.2f}")


if __name__ == "__main__":
    main()
