"""Forward and backward passes derived by hand in NumPy: what the library is proved against.

Each function has the name and the argument order of the public function that it checks, and
returns `(y, backward)`. `backward(dy)` takes the cotangent of `y` and returns a tuple with one
gradient for each array argument, `None` where an argument is absent or has no gradient (integer
labels, a mask). Hyperparameters (`alpha`, `axis`, `epsilon`, ...) have no entry. Arrays of any
floating dtype are accepted and turned into float64 first.

At a kink the derivative is that of one side; each docstring that has one says which.
"""
