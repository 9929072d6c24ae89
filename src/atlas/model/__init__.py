"""The transformer in PyTorch, from explicit parts.

Read it in this order: config, positions, norm, attention, feed_forward, block, decoder,
initialise. Shapes on the lines: B batch, T time, C channels (d_model), H query heads,
K key and value heads, D head size, F feed-forward width, V vocabulary.
"""
