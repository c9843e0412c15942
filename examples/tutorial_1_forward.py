"""Forward propagation: the price of a house, from three features through three hidden neurons.

A network is two functions, and its parameters are a dict that anyone can write down. The weights
are random and nothing is trained yet, so the price means nothing.
"""

import numpy as np

import jaxnn as nn

model = nn.serial(hidden=nn.dense(3), relu=nn.relu, out=nn.dense(1))

np.random.seed(42)
params = {  # a kernel has shape (inputs, outputs)
    "hidden": {"kernel": np.random.randn(3, 3).T, "bias": np.zeros(3)},
    "relu": {},
    "out": {"kernel": np.random.randn(1, 3).T, "bias": np.zeros(1)},
}

house = np.array([[1200.0, 3.0, 8.0]])  # size, bedrooms, location: one row for each house
price, _ = model.apply(params, {}, house)
print(f"Predicted house price: {price.item():.2f}")
