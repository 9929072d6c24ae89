"""The commands of ``atlas``.

Heavy imports stand inside them, so that the light ones answer at once.
"""
