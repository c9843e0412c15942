"""ResNet: the model of a `config.json`, and where its parameters stand in the files."""

from typing import Any

import jax

import jaxnn as nn

Config = dict[str, Any]


def model(config: Config) -> nn.Layer:
    """From images (batch, height, width, channels) to logits (batch, classes)."""
    stages = {
        f"stage{i}": nn.serial(*(block(config, i, j) for j in range(depth)))
        for i, depth in enumerate(config["depths"])
    }
    return nn.serial(
        stem=normed_conv(config["embedding_size"], 7, 2),
        relu=nn.relu,
        pool=nn.max_pool((3, 3), strides=2, padding=((1, 1), (1, 1))),
        **stages,
        average=nn.global_avg_pool(),
        head=nn.dense(len(config.get("id2label") or ("0", "1"))),  # two are not written
    )


def normed_conv(channels: int, size: int, strides: int = 1) -> nn.Layer:
    """A convolution without bias, padded as in torch, and batch norm."""
    half = size // 2
    conv = nn.conv(
        channels,
        (size, size),
        strides=strides,
        padding=((half, half), (half, half)),
        use_bias=False,
    )
    return nn.serial(conv=conv, norm=nn.batch_norm(epsilon=1e-5))


def block(config: Config, stage: int, position: int) -> nn.Layer:
    """A residual block; the first of a stage has other channels and strides."""
    channels = config["hidden_sizes"][stage]
    before = (config["embedding_size"], *config["hidden_sizes"])[stage]
    is_first = position == 0
    strides = 2 if is_first and (stage > 0 or config["downsample_in_first_stage"]) else 1
    if config["layer_type"] == "bottleneck":
        narrow, early = channels // 4, config["downsample_in_bottleneck"]
        layers = [
            normed_conv(narrow, 1, strides if early else 1),
            normed_conv(narrow, 3, 1 if early else strides),
            normed_conv(channels, 1),
        ]
    else:
        layers = [normed_conv(channels, 3, strides), normed_conv(channels, 3)]
    children = {f"layer{i}": layer for i, layer in enumerate(layers)}
    if is_first and (before != channels or strides != 1):
        children["shortcut"] = normed_conv(channels, 1, strides)

    def forward(f: Any, x: jax.Array) -> jax.Array:
        y = x
        for i in range(len(layers)):
            y = getattr(f, f"layer{i}")(y if i == 0 else nn.relu(y))
        return nn.relu(y + (f.shortcut(x) if "shortcut" in children else x))

    return nn.compose(forward, **children)


def names(config: Config) -> dict[str, Any]:
    """The arguments of `nn.import_params` and `nn.export_params`."""
    modules = {"stem": "resnet.embedder.embedder", "head": "classifier.1"}
    for i, depth in enumerate(config["depths"]):
        for j in range(depth):
            here, there = f"stage{i}/{j}", f"resnet.encoder.stages.{i}.layers.{j}"
            modules[f"{here}/shortcut"] = f"{there}.shortcut"
            modules |= {f"{here}/layer{k}": f"{there}.layer.{k}" for k in range(3)}
    parts = {"conv": "convolution", "norm": "normalization"}
    table = {
        f"{here}/{part}": f"{there}.{name}"
        for here, there in modules.items()
        for part, name in parts.items()
    }
    return {
        "names": table | {"head": modules["head"]},
        "ignore": ["*.num_batches_tracked"],
    }
