"""The transformer decoder in NumPy alone, with every backward pass written by hand.

It is here to be read, and to test ``atlas.model``: same options, same weight names, same numbers.
The pipeline does not use it. Read the files in this order: layers, positions, attention, block,
decoder, training; docs/walkthrough.md runs them step by step.

Each layer is a pair of functions. ``x_forward`` returns ``(out, cache)``; ``x_backward`` takes
``(dout, cache)``, where ``dout`` is the gradient of the loss with respect to ``out``, and returns
the gradient of each input. Weights and their gradients are dicts with the same keys. The dtype of
the weights, float32 or float64, is the dtype of all results.
"""
