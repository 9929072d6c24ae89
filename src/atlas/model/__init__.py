"""The family of models in PyTorch, from explicit parts.

Read it in this order: config, positions, visibility, norm, attention, feed_forward, block,
decoder, initialise; then cache, counts, encoder_decoder, baselines. Shapes on the lines: B batch,
T time (queries), S time (keys), C channels (d_model), H query heads, K key and value heads,
D head size, F feed-forward width, V vocabulary. docs/model.md draws it; atlas.reference is the
same in NumPy, with every backward pass written by hand.
"""
