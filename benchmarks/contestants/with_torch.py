"""torch, in its eager mode: `torch.compile` needs a C++ compiler, which not every machine has."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.row import Run

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if DEVICE == "cuda":
    torch.set_float32_matmul_precision("high")  # TensorFloat-32, as JAX has it


def tensor(array: Any) -> Tensor:
    """An array on the device; integers as torch wants its labels."""
    copied = torch.tensor(np.ascontiguousarray(array), device=DEVICE)
    return copied.long() if copied.dtype == torch.int32 else copied


def wait() -> None:
    """Until a GPU has done what it was told."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def set_to(module: nn.Module, **arrays: Any) -> nn.Module:
    """A module, with these weights, on the device."""
    for name, array in arrays.items():
        setattr(module, name, nn.Parameter(tensor(array)))
    return module.to(DEVICE)


def linear(layer: Any) -> nn.Module:
    """A linear layer with these weights."""
    made = nn.Linear(*layer["kernel"].shape)
    return set_to(made, weight=layer["kernel"].T, bias=layer["bias"])


def mlp_of(weights: Any) -> nn.Module:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for layer in weights:
        layers += [linear(layer), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def training(model: nn.Module, loss: Any, optimizer: Any, x: Tensor, y: Tensor) -> Run:
    """Steps on one batch."""

    def run(n: int) -> np.ndarray:
        losses = []
        for _ in range(n):
            optimizer.zero_grad(set_to_none=True)
            value = loss(model(x), y)
            value.backward()
            optimizer.step()
            losses.append(value.detach())
        wait()
        return torch.stack(losses).cpu().numpy()

    return run


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean cross-entropy; classes are the last axis."""
    return functional.cross_entropy(logits.flatten(0, -2), labels.flatten())


def sgd_of(model: nn.Module, data: Any) -> Any:
    """SGD, fused where that exists."""
    return torch.optim.SGD(model.parameters(), lr=data["learning_rate"], fused=True)


def mlp(data: Any) -> Run:
    """The MLP, by fused Adam."""
    model = mlp_of(data["weights"])
    optimizer = torch.optim.Adam(model.parameters(), lr=data["learning_rate"], fused=True)
    return training(model, cross_entropy, optimizer, tensor(data["x"]), tensor(data["y"]))


def cnn(data: Any) -> Run:
    """The CNN, channels last."""
    layers: list[nn.Module] = []
    *convolutions, last = data["weights"]
    for layer in convolutions:
        height, width, inputs, outputs = layer["kernel"].shape
        made = nn.Conv2d(inputs, outputs, (height, width), padding=1)
        kernel = layer["kernel"].transpose(3, 2, 0, 1)
        layers += [set_to(made, weight=kernel, bias=layer["bias"]), nn.ReLU(), nn.MaxPool2d(2)]
    side = data["x"].shape[1] // 4
    # torch flattens channels first.
    kernel = last["kernel"].reshape(side, side, -1, 10).transpose(2, 0, 1, 3).reshape(-1, 10)
    layers += [nn.Flatten(), linear({"kernel": kernel, "bias": last["bias"]})]
    model = nn.Sequential(*layers).to(memory_format=torch.channels_last)
    x = tensor(data["x"].transpose(0, 3, 1, 2)).to(memory_format=torch.channels_last)
    return training(model, cross_entropy, sgd_of(model, data), x, tensor(data["y"]))


class Outputs(nn.Module):
    """A recurrent network without its final state."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """What it gives at each element."""
        outputs: Tensor = self.network(x)[0]
        return outputs


def recurrent(network: nn.Module, data: Any) -> Run:
    """Steps of a recurrent network."""
    model = Outputs(network)
    x, y = tensor(data["x"]), tensor(data["y"])
    return training(model, functional.mse_loss, sgd_of(model, data), x, y)


def weights_of(data: Any, second_bias: np.ndarray) -> dict[str, np.ndarray]:
    """The weights by torch's names."""
    return {
        "weight_ih_l0": data["weights"]["input"]["kernel"].T,
        "weight_hh_l0": data["weights"]["recurrent"]["kernel"].T,
        "bias_ih_l0": data["weights"]["input"]["bias"],
        "bias_hh_l0": second_bias,
    }


def lstm(data: Any) -> Run:
    """The LSTM; torch's second bias, which says the same as the first, stays zero."""
    hidden, gates = data["weights"]["recurrent"]["kernel"].shape
    network = nn.LSTM(data["x"].shape[-1], hidden, batch_first=True)
    set_to(network, **weights_of(data, np.zeros(gates, np.float32)))
    network.bias_hh_l0.requires_grad_(False)
    return recurrent(network, data)


def gru(data: Any) -> Run:
    """The GRU; of torch's second bias only the third that is not in the first is trained."""
    hidden, gates = data["weights"]["recurrent"]["kernel"].shape
    bias = np.zeros(gates, np.float32)
    bias[2 * hidden :] = data["weights"]["recurrent"]["bias"]
    network = nn.GRU(data["x"].shape[-1], hidden, batch_first=True)
    set_to(network, **weights_of(data, bias))
    trained = (torch.arange(gates, device=DEVICE) >= 2 * hidden).float()
    network.bias_hh_l0.register_hook(lambda gradient: gradient * trained)
    return recurrent(network, data)


def layer_norm(weights: Any) -> nn.Module:
    """A layer norm with these weights."""
    made = nn.LayerNorm(len(weights["bias"]))
    return set_to(made, weight=weights["scale"], bias=weights["bias"])


class Block(nn.Module):
    """A block of the transformer: queries, keys and values in one product."""

    def __init__(self, heads: int, weights: Any) -> None:
        super().__init__()
        self.heads = heads
        attention, mlp = weights["attention"], weights["mlp"]
        parts = [attention[name] for name in ("query", "key", "value")]
        joined = {k: np.concatenate([p[k] for p in parts], axis=-1) for k in ("kernel", "bias")}
        self.qkv, self.out = linear(joined), linear(attention["out"])
        self.hidden, self.last = linear(mlp["hidden"]), linear(mlp["out"])
        self.attention_norm = layer_norm(weights["attention_norm"])
        self.mlp_norm = layer_norm(weights["mlp_norm"])

    def forward(self, x: Tensor) -> Tensor:
        """The block's output."""
        qkv = self.qkv(self.attention_norm(x))
        q, k, v = qkv.view(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(x.shape))
        y = functional.gelu(self.hidden(self.mlp_norm(x)), approximate="tanh")
        return x + self.last(y)  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """The transformer."""

    def __init__(self, data: Any) -> None:
        super().__init__()
        weights = data["weights"]
        self.embed = nn.Parameter(tensor(weights["embed"]["embedding"]))
        self.positions = nn.Parameter(tensor(weights["positions"]["embedding"]))
        blocks = []
        for i in range(len(weights["blocks"]["mlp_norm"]["bias"])):
            layer = {
                part: {
                    name: {k: v[i] for k, v in leaf.items()} if isinstance(leaf, dict) else leaf[i]
                    for name, leaf in children.items()
                }
                for part, children in weights["blocks"].items()
            }
            blocks.append(Block(data["heads"], layer))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.logits = layer_norm(weights["norm"]), linear(weights["logits"])
        self.narrow = data["dtype"] != "float32"

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits."""
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.narrow):
            x = functional.embedding(tokens, self.embed) + self.positions
            return self.logits(self.norm(self.blocks(x)))  # type: ignore[no-any-return]


def transformer(data: Any) -> Run:
    """The transformer, by fused AdamW."""
    model = Transformer(data)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=data["learning_rate"], weight_decay=data["weight_decay"], fused=True
    )

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return cross_entropy(logits.float(), y)

    return training(model, loss, optimizer, tensor(data["x"]), tensor(data["y"]))


def tiny(data: Any) -> Run:
    """The tutorial's network, from the same beginning again and again."""
    x, y = tensor(data["x"]), tensor(data["y"])

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            model = mlp_of(data["weights"])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            step = training(model, functional.binary_cross_entropy_with_logits, optimizer, x, y)
            losses = step(data["epochs"])
        return losses

    return run


def tiny_8(data: Any) -> Run:
    """The first eight of many networks, one after the other, each as in `tiny`."""
    members = [
        tiny(data | {"weights": [{k: v[i] for k, v in w.items()} for w in data["weights"]]})
        for i in range(min(8, len(data["weights"][0]["bias"])))
    ]

    def run(n: int) -> None:
        for _ in range(n):
            for member in members:
                member(1)

    return run


def tiny64(data: Any) -> Run:
    """Many networks as one, by batched products."""
    x, y = tensor(data["x"]), tensor(data["y"])
    (first, second), networks = data["weights"], len(data["weights"][0]["bias"])

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            w1, w2 = (nn.Parameter(tensor(w["kernel"])) for w in (first, second))
            b1, b2 = (nn.Parameter(tensor(w["bias"][:, None])) for w in (first, second))
            optimizer = torch.optim.SGD([w1, b1, w2, b2], lr=0.1)
            batch, targets = x.expand(networks, *x.shape), y.expand(networks, *y.shape)
            losses = []
            for _ in range(data["epochs"]):
                optimizer.zero_grad(set_to_none=True)
                hidden = torch.relu(torch.baddbmm(b1, batch, w1))
                logits = torch.baddbmm(b2, hidden, w2)
                loss = functional.binary_cross_entropy_with_logits(
                    logits, targets, reduction="none"
                ).mean((1, 2))
                loss.sum().backward()
                optimizer.step()
                losses.append(loss.detach())
            wait()
        return torch.stack(losses, 1).cpu().numpy()

    return run


def product(data: Any) -> Run:
    """A matrix product again and again."""
    shape, dtype = (data["size"], data["size"]), getattr(torch, data["dtype"])
    a = torch.full(shape, 1 / data["size"], dtype=dtype, device=DEVICE)
    b = torch.full(shape, 1.0, dtype=dtype, device=DEVICE)

    def run(n: int) -> np.ndarray:
        nonlocal b
        for _ in range(n):
            b = b @ a
        wait()
        return b[0, 0].float().cpu().numpy()

    return run


def stream(data: Any) -> Run:
    """An update in place."""
    x = tensor(data["x"])

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            x.mul_(0.5)
        wait()
        return x[0].cpu().numpy().copy()

    return run


def update_with(optimizer: Any, params: list[Tensor], data: Any) -> Run:
    """Updates by an optimizer, the gradients given."""
    for leaf, grad in zip(params, data["grads"], strict=True):
        leaf.grad = tensor(grad)

    def run(n: int) -> np.ndarray:
        for _ in range(n):
            optimizer.step()
        wait()
        return params[0].detach().cpu().numpy().copy()

    return run


def adam_with(data: Any, **how: bool) -> Run:
    """Adam."""
    params: list[Tensor] = [nn.Parameter(tensor(leaf)) for leaf in data["params"]]
    optimizer = torch.optim.Adam(params, lr=data["learning_rate"], eps=data["eps"], **how)
    return update_with(optimizer, params, data)


def adam_fused(data: Any) -> Run:
    """Adam, one kernel for each leaf."""
    return adam_with(data, fused=True)


def adam_foreach(data: Any) -> Run:
    """Adam, one operation after the other on all leaves."""
    return adam_with(data, foreach=True)


def sgd(data: Any) -> Run:
    """A step of SGD."""
    params: list[Tensor] = [nn.Parameter(tensor(leaf)) for leaf in data["params"]]
    optimizer = torch.optim.SGD(params, lr=data["learning_rate"], foreach=True)
    return update_with(optimizer, params, data)


def digits(data: Any) -> Run:
    """Digits, shuffled by torch."""

    def run(n: int) -> np.ndarray:
        images, targets = (tensor(a) for a in data["training"])
        x_test, y_test = (tensor(a) for a in data["test"])
        torch.manual_seed(1)
        hidden = data["hidden"]
        model = nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10)).to(DEVICE)
        optimizer = torch.optim.Adam(model.parameters(), lr=data["learning_rate"], fused=True)
        for _ in range(data["epochs"]):
            order = torch.randperm(len(images), device=DEVICE)
            for rows in order.split(data["batch"]):
                optimizer.zero_grad(set_to_none=True)
                cross_entropy(model(images[rows]), targets[rows]).backward()
                optimizer.step()
        with torch.no_grad():
            predicted = model(x_test).argmax(-1)
        return (predicted == y_test).float().mean().cpu().numpy()

    return run
