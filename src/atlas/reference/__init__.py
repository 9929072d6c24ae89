"""The transformer in NumPy alone, every backward pass by hand.

It is the readable oracle of ``atlas.model``: the same options, the same names of weights, the same
numbers. Nothing of it is used by the pipeline. Read it in this order: arrays, linear, activations,
softmax, norm, positions, options, mask, attention, feed_forward, block, decoder, initialise, loss,
optimizers, training, generation.

Every part is a pair of functions. ``x_forward`` returns ``(out, cache)``; ``x_backward`` takes
``(dout, cache)``, where ``dout`` is the gradient of the loss with respect to ``out``, and returns
that with respect to each input. A part with weights takes them as a dict and gives their gradients
in a dict with the same keys. float64 stays float64, float32 stays float32.

Shapes on the lines: B batch, T time, C channels (d_model), H query heads, K key and value heads,
D head size, F feed-forward width, V vocabulary; ``...`` any axes.
"""
