"""The models in PyTorch, built from explicit parts.

Reading order: config, layers, masks, attention, transformer, weights, loss; then counts and
baselines. Shapes in comments: B batch, T queries, S keys, C channels (d_model), H query heads,
K key and value heads, D head size, F feed-forward width, V vocabulary. docs/model.md draws it;
atlas.reference is the same in NumPy, with hand-written backward passes.
"""
